"""Editing a text in the user's editor."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from edgesppo.errors import UsageError
from edgesppo.system import validate
from edgesppo.terminal import ctrl_c

_FALLBACKS = ("sensible-editor", "editor", "nano", "vim", "vi", "notepad")
# Exit statuses of a program that Ctrl-C ended, and of a shell that reports it.
_STOPPED = (-signal.SIGINT, 128 + signal.SIGINT)


def edit(text: str) -> str:
    """Open the text in $VISUAL or $EDITOR, or a common editor, and return it as saved.

    Raises UsageError if there is no editor or it fails.
    """
    validate.text("the message", text)
    command = _command()
    # A private temporary folder, since editors leave copies beside the file.
    with tempfile.TemporaryDirectory(prefix="edgesppo-") as folder:
        file = Path(folder) / "message.md"
        file.write_text(text + "\n" if text else "", encoding="utf-8")
        try:
            with ctrl_c.ignored():
                code = subprocess.run([*command, str(file)], check=False).returncode
            if code in _STOPPED:
                raise UsageError(f"{command[0]} was stopped; nothing was changed")
            if code:
                raise UsageError(f"{command[0]} failed (exit code {code}); nothing was changed")
            # Editors on Windows may begin a file with a byte order mark.
            return file.read_text(encoding="utf-8-sig").strip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{command[0]}: {error}; set $EDITOR to use another editor") from None


def _command() -> list[str]:
    for name in ("VISUAL", "EDITOR"):
        if own := os.environ.get(name, "").strip():
            try:
                return _words(own)
            except ValueError as error:
                raise UsageError(f"${name} is {own!r}, not a valid command: {error}") from None
    path = next(filter(None, map(shutil.which, _FALLBACKS)), None)
    if path is None:
        raise UsageError("no editor found: set $EDITOR to the one you use")
    return [path]


def _words(command: str, *, posix: bool = os.name != "nt") -> list[str]:
    """The words of a command; on Windows a backslash is no escape, and quotes keep blanks."""
    words = shlex.split(command, posix=posix)
    return words if posix else [word.strip('"') for word in words]
