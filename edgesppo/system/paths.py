"""Where edgesppo keeps its files, and which names a file can have on every system.

The set-up of a checkout imports this before anything is installed.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from edgesppo.errors import UsageError

# The folder of this package, installed or in a checkout.
PACKAGE = Path(__file__).resolve().parent.parent
# Names that Windows takes for a device, whatever follows the first dot.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)( *\..*)?", re.IGNORECASE
)
_FORBIDDEN = '<>:"/\\|?*'
_MAX_NAME = 255  # bytes, on most file systems


def cache_dir() -> Path:
    """The folder for models and other caches: $EDGESPPO_HOME, else the platform's cache folder."""
    if home := os.environ.get("EDGESPPO_HOME"):
        folder = expand_user("EDGESPPO_HOME", home)
        if not folder.is_absolute():  # it would be another one in each working folder
            raise UsageError(f"EDGESPPO_HOME is {home!r}, expected an absolute path")
        return folder
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgesppo"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "edgesppo"
    return _xdg("XDG_CACHE_HOME", ".cache") / "edgesppo"


def nearest_existing(folder: Path) -> Path:
    """The folder, or the lowest one above it that exists: the disk on which it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def expand_user(what: str, path: str) -> Path:
    """A path given by the user, with `~` expanded. Raises UsageError that calls it `what`."""
    if "\0" in path:
        raise UsageError(f"{what} is {path!r}: a file name cannot contain a NUL character")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{what} is {path!r}, but there is no home folder of that name") from None


def data_dir() -> Path:
    """The folder for chats and locks: $EDGESPPO_HOME, else the platform's data folder.

    These cannot be created again, and cache folders are emptied by systems and people.
    """
    if os.environ.get("EDGESPPO_HOME"):
        return cache_dir()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgesppo"
    if sys.platform == "win32":
        return cache_dir()
    return _xdg("XDG_DATA_HOME", ".local/share") / "edgesppo"


def _xdg(variable: str, usual: str) -> Path:
    """A base folder of the XDG specification, which has a relative one ignored."""
    folder = Path(os.environ.get(variable, ""))
    return folder if folder.is_absolute() else Path.home() / usual


def portable_name_fault(name: str) -> str | None:
    """Why a file cannot have this name on every system, as "has ..."; None if it can."""
    if not name.isprintable():
        return "has control or invisible characters"
    if set(_FORBIDDEN) & set(name):
        return f"has one of the characters {_FORBIDDEN}"
    if name.endswith((".", " ")):
        return "ends in a dot or a space, which Windows drops"
    if _DEVICE.fullmatch(name):
        return "is the name of a device on Windows"
    return None if len(name.encode()) <= _MAX_NAME else "is longer than a file name may be"
