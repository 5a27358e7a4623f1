"""Standard streams: closed ones when the program starts, their encoding, broken ones at its end."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def fill_closed_streams() -> None:
    """Replace closed standard streams: stderr discards, stdout fails on every write.

    If left closed, their file descriptors would go to the next files that are opened, such as the
    model's.
    """
    modes = {"stdin": os.O_RDONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}
    for descriptor, (name, mode) in enumerate(modes.items()):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(descriptor)
                continue
            os.open(os.devnull, mode)  # takes the lowest free descriptor, which is this one
            if name != "stdin":
                raw = io.FileIO(descriptor, "w", closefd=False)  # unbuffered: no retry at exit
                setattr(sys, name, io.TextIOWrapper(raw, "utf-8", write_through=True))


def write_any_character() -> None:
    """Write files and pipes in UTF-8, and to a terminal `?` for what its encoding lacks.

    Windows and some locales have encodings that lack most of what a model may answer.
    """
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if not stream.isatty():
            stream.reconfigure(encoding="utf-8", errors=stream.errors)
        elif stream.errors == "strict":
            stream.reconfigure(errors="replace")


def discard_unwritten_output() -> None:
    """Drop output that could not be written: Python would try again at exit, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
