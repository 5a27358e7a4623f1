"""Owns the way to the clipboard: a program of the system, or the terminal itself (OSC 52)."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess

_TIMEOUT_S = 5
# Terminals drop what is longer: xterm takes this many characters of base64.
_MAX_ENCODED = 100_000
# (program, what it needs to reach a clipboard at all)
_PROGRAMS: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("pbcopy",), None),
    (("wl-copy",), "WAYLAND_DISPLAY"),
    (("xclip", "-selection", "clipboard"), "DISPLAY"),
    (("xsel", "--clipboard", "--input"), "DISPLAY"),
    (("clip.exe",), None),
)


def by_program(text: str) -> str | None:
    """Copy by a program; its name, or None where there is none that can.

    Over SSH there is none: its clipboard would be that of the other machine.
    """
    if os.environ.get("SSH_TTY") or os.environ.get("SSH_CONNECTION"):
        return None
    for command, needs in _PROGRAMS:
        path = shutil.which(command[0])
        if path is None or (needs and not os.environ.get(needs)):
            continue
        # clip.exe reads UTF-8 only behind a mark; the others read it as it is.
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


def by_terminal(text: str) -> str | None:
    """What to write to a terminal so that it copies; None for what is too long for it."""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    return f"\x1b]52;c;{encoded}\x07" if len(encoded) <= _MAX_ENCODED else None
