"""Owns the terminal as the chat writes to it: answers, words beside them, a line that passes.

A passing line (how far a prompt is, that a model is loading) is gone when anything else is
written. Knows nothing of chats.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from typing import TextIO

from edgesppo.system.sanitize import printable
from edgesppo.system.signals import detach_terminal
from edgesppo.terminal import cells
from edgesppo.terminal.columns import between_words

_TEXT_WIDTH = 100  # columns of prose: longer rows are hard to read


class Screen:
    """Standard output and standard error of one person's terminal.

    `moves` allows what goes back over what was written, `styled` colours and weight; without
    them every character stands where it was first written.
    """

    def __init__(self, *, moves: bool, styled: bool) -> None:
        self.moves = moves
        self.styled = styled
        self.lock = threading.RLock()
        self._passing = ""
        if styled:
            _understand_escapes()

    @property
    def size(self) -> os.terminal_size:
        """Columns and rows, as they are now."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found = os.get_terminal_size(sys.stdout.fileno())
            if found.columns > 0 and found.lines > 0:
                return found
        return os.terminal_size((80, 24))

    @property
    def text_columns(self) -> int:
        """How wide prose is; the last column stays free, as terminals differ in what it does."""
        return max(10, min(_TEXT_WIDTH, self.size.columns - 1))

    @property
    def said_columns(self) -> int | None:
        """How wide what is said may be; None where nobody sees columns."""
        return max(10, self.size.columns - 1) if sys.stderr.isatty() else None

    @property
    def utf8(self) -> bool:
        """Whether more than ASCII can be drawn."""
        return "utf" in (sys.stdout.encoding or "").lower()

    @staticmethod
    def clean(text: str) -> str:
        """Text from outside as it may be written: a terminal must not be steered by it."""
        return printable(text) if sys.stdout.isatty() else text

    def write(self, text: str) -> None:
        """Write to standard output at once. What of it came from outside must be printable."""
        with self.lock:
            self.pass_by("")
            _put(sys.stdout, text)

    def say(self, text: str) -> None:
        """A line beside the answers: standard error, control characters made visible."""
        with self.lock:
            self.pass_by("")
            sys.stdout.flush()
            text = printable(text)
            if columns := self.said_columns:
                lines = (between_words(line, columns) for line in text.split("\n"))
                text = "\n".join(row for rows in lines for row in rows)
            with contextlib.suppress(OSError):  # the chat goes on where it cannot be said
                _put(sys.stderr, text + "\n")

    def pass_by(self, text: str) -> None:
        """Show a line that the next one takes the place of; an empty one takes it away."""
        if not self.moves:
            return
        with self.lock:
            if text == self._passing:
                return  # a slow line has better things to carry
            row = cells.rows(cells.cells(printable(text)), self.size.columns - 1)[0]
            _put(sys.stdout, "\r\x1b[K" + cells.text_of(row))
            self._passing = text


def _put(out: TextIO, text: str) -> None:
    """What the terminal's encoding does not have becomes a question mark, and no error.

    A terminal that is gone must not keep a chat from being saved.
    """
    encoding = out.encoding or "utf-8"
    try:
        out.write(text.encode(encoding, "replace").decode(encoding))
        out.flush()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        detach_terminal()


def _understand_escapes() -> None:
    """Windows consoles obey escapes when told to."""
    if sys.platform == "win32":
        import ctypes

        console = ctypes.windll.kernel32
        handle = console.GetStdHandle(-11)
        mode = ctypes.c_uint32()
        if console.GetConsoleMode(handle, ctypes.byref(mode)):
            console.SetConsoleMode(handle, mode.value | 4)
