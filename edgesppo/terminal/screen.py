"""Output of an interactive program: standard output, messages beside it, a transient line.

The transient line (progress of a prompt or of loading a model) disappears as soon as anything
else is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from typing import TextIO

from edgesppo.errors import OutputError
from edgesppo.system.sanitize import printable
from edgesppo.system.signals import detach_terminal
from edgesppo.terminal import cells
from edgesppo.terminal.columns import wrap_words
from edgesppo.terminal.output import is_broken_pipe, is_quiet

_TEXT_WIDTH = 100  # the most columns of prose: longer rows are hard to read


class Screen:
    """Standard output and standard error, which are a terminal or a pipe.

    `redraws` allows writing over earlier output, `styled` colours and bold text; without them
    every character stays where it was first written.
    """

    def __init__(self, *, redraws: bool, styled: bool) -> None:
        self.redraws = redraws
        self.styled = styled
        self.lock = threading.RLock()
        self._transient = ""
        if styled or redraws:
            _enable_escapes()

    @property
    def size(self) -> os.terminal_size:
        """The current number of columns and rows; 80 by 24 if unknown."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            size = os.get_terminal_size(sys.stdout.fileno())
            if size.columns > 0 and size.lines > 0:
                return size
        return os.terminal_size((80, 24))

    @property
    def text_columns(self) -> int:
        """The width of prose. The last column stays free: terminals differ in when it wraps."""
        return max(10, min(_TEXT_WIDTH, self.size.columns - 1))

    @property
    def message_columns(self) -> int | None:
        """The width of messages on standard error; None (unlimited) if that is no terminal."""
        return max(10, self.size.columns - 1) if sys.stderr.isatty() else None

    @property
    def utf8(self) -> bool:
        """Whether characters beyond ASCII can be written."""
        return "utf" in (sys.stdout.encoding or "").lower()

    def write(self, text: str) -> None:
        """Write to standard output and flush. On a terminal, untrusted text must be `printable`.

        Raises OutputError, and OSError if nobody reads it any more.
        """
        with self.lock:
            self.show_transient("")
            try:
                _put(sys.stdout, text)
            except OSError as error:
                if is_broken_pipe(error):
                    raise
                raise OutputError(
                    f"standard output cannot be written: {error.strerror or error}"
                ) from None

    def say(self, text: str) -> None:
        """Write a message to standard error, wrapped and made safe to show."""
        with self.lock:
            self.show_transient("")
            sys.stdout.flush()
            text = printable(text)
            if columns := self.message_columns:
                lines = (wrap_words(line, columns) for line in text.split("\n"))
                text = "\n".join(row for rows in lines for row in rows)
            with contextlib.suppress(OSError):  # a lost message does not end the chat
                _put(sys.stderr, text + "\n")

    def note(self, text: str) -> None:
        """Write a message that --quiet leaves out."""
        if not is_quiet():
            self.say(text)

    def shortened(self, text: str) -> str:
        """A message without its middle if it would take more than a third of the terminal."""
        columns = self.message_columns
        most = (columns or 0) * max(4, self.size.lines // 3)
        if columns is None or len(text) <= most:
            return text
        begin = most * 2 // 3
        return f"{text[:begin]} [...] {text[begin + len(' [...] ') - most :]}"

    def show_transient(self, text: str) -> None:
        """Show a line that the next output replaces; an empty text removes it."""
        if not self.redraws:
            return
        with self.lock:
            if text == self._transient:
                return  # saves bytes on a slow connection
            row = cells.wrap(cells.cells(printable(text)), self.size.columns - 1)[0]
            _put(sys.stdout, "\r\x1b[K" + cells.text_of(row))
            self._transient = text


def _put(out: TextIO, text: str) -> None:
    """Write and flush; a character that the encoding lacks becomes a question mark.

    A terminal that has been closed (EIO) is not an error, so that the chat can still be saved.
    """
    encoding = out.encoding or "utf-8"
    try:
        out.write(text.encode(encoding, "replace").decode(encoding))
        out.flush()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        detach_terminal()


def _enable_escapes() -> None:
    """Turn on escape sequences in a Windows console."""
    if sys.platform == "win32":
        import ctypes

        console = ctypes.windll.kernel32
        handle = console.GetStdHandle(-11)
        mode = ctypes.c_uint32()
        if console.GetConsoleMode(handle, ctypes.byref(mode)):
            console.SetConsoleMode(handle, mode.value | 4)
