"""Owns where our own files live. Standard library only: the set-up uses it, too."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from edgesppo.errors import UsageError

# The folder of the installed package, or of a checkout's.
PACKAGE = Path(__file__).resolve().parent.parent
# What Windows takes for a device, whatever follows its first dot.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)( *\..*)?", re.IGNORECASE
)
_FORBIDDEN = '<>:"/\\|?*'
_MAX_NAME = 255  # bytes, on most file systems


def cache_dir() -> Path:
    """The folder of everything we keep: $EDGESPPO_HOME, else the platform's cache folder."""
    if own := os.environ.get("EDGESPPO_HOME"):
        return expand_user("EDGESPPO_HOME", own)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgesppo"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "edgesppo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgesppo"


def expand_user(what: str, path: str) -> Path:
    """A path that a person gave, `~` and all. Raises UsageError, naming `what`."""
    if "\0" in path:
        raise UsageError(f"{what} is {path!r}: no file's name has a NUL character")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{what} is {path!r}, but there is no such user's home") from None


def data_dir() -> Path:
    """The folder of what cannot be made anew: $EDGESPPO_HOME, else the platform's data folder.

    Systems and people empty cache folders at will.
    """
    if os.environ.get("EDGESPPO_HOME"):
        return cache_dir()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgesppo"
    if sys.platform == "win32":
        return cache_dir()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "edgesppo"


def portable_name_fault(name: str) -> str | None:
    """Why no file can have this name on every system; None where one can."""
    if not name.isprintable():
        return "has control or invisible characters"
    if set(_FORBIDDEN) & set(name):
        return f"has one of the characters {_FORBIDDEN}"
    if name.endswith((".", " ")):
        return "ends in a dot or a space, which Windows drops"
    if _DEVICE.fullmatch(name):
        return "is a device on Windows"
    return None if len(name.encode()) <= _MAX_NAME else "is longer than a file's name may be"
