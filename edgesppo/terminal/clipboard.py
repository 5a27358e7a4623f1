"""Copying text to the clipboard: by a program of the system, or by the terminal (OSC 52)."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess

_TIMEOUT_S = 5
# Terminals ignore longer sequences: this is the limit of xterm, in characters of base64.
_MAX_ENCODED = 100_000
# (command, the environment variable without which it cannot reach a clipboard)
_PROGRAMS: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("pbcopy",), None),
    (("wl-copy",), "WAYLAND_DISPLAY"),
    (("xclip", "-selection", "clipboard"), "DISPLAY"),
    (("xsel", "--clipboard", "--input"), "DISPLAY"),
    (("clip.exe",), None),
)


def copy_with_program(text: str) -> str | None:
    """Copy the text with a program of the system; return its name, None if no program can.

    Over SSH none is tried: it would copy to the clipboard of the remote machine.
    """
    if os.environ.get("SSH_TTY") or os.environ.get("SSH_CONNECTION"):
        return None
    for command, needs in _PROGRAMS:
        path = shutil.which(command[0])
        if path is None or (needs and not os.environ.get(needs)):
            continue
        # clip.exe needs a byte order mark, which "utf-16" writes; the others read plain UTF-8.
        data = text.encode("utf-16" if command[0] == "clip.exe" else "utf-8", "replace")
        try:
            subprocess.run(
                [path, *command[1:]],
                input=data,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return command[0]
    return None


def osc52(text: str) -> str | None:
    """The escape sequence that makes a terminal copy the text; None if it is too long."""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    return f"\x1b]52;c;{encoded}\x07" if len(encoded) <= _MAX_ENCODED else None
