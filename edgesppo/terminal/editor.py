"""Owns writing a text in the person's own editor."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgesppo.errors import UsageError
from edgesppo.system import validate
from edgesppo.terminal import ctrl_c

_USUAL = ("sensible-editor", "editor", "nano", "vim", "vi", "notepad")


def edit(text: str) -> str:
    """The text as it comes out of $VISUAL or $EDITOR; without one, of what is usual here.

    Raises UsageError when there is none, or it fails: then nothing changes.
    """
    validate.text("the message", text)
    command = _command()
    # A folder of our own, readable by its owner only: editors leave copies beside a file.
    with tempfile.TemporaryDirectory(prefix="edgesppo-") as folder:
        file = Path(folder) / "message.md"
        file.write_text(text + "\n" if text else "", encoding="utf-8")
        try:
            with ctrl_c.ignored():
                code = subprocess.run([*command, str(file)], check=False).returncode
            if code:
                raise UsageError(f"{command[0]} ended with code {code}; the message is as it was")
            return file.read_text(encoding="utf-8").strip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{command[0]}: {error}; $EDITOR names another editor") from None


def _command() -> list[str]:
    for name in ("VISUAL", "EDITOR"):
        if own := os.environ.get(name, "").strip():
            try:
                return shlex.split(own, posix=os.name != "nt")
            except ValueError as error:
                raise UsageError(f"${name} is {own!r}: {error}") from None
    found = next((path for name in _USUAL if (path := shutil.which(name))), None)
    if found is None:
        raise UsageError("no editor: set EDITOR to the one you use")
    return [found]
