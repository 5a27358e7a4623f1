"""Standard error: plain lines, one line that is redrawn in place; and output that nobody reads."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from edgesppo.system.sanitize import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

# How many `quieted` blocks are open, in any thread.
_quiet = 0


@contextlib.contextmanager
def quieted() -> Iterator[None]:
    """Write nothing to standard error in the block but errors and questions (`--quiet`)."""
    global _quiet
    _quiet += 1
    try:
        yield
    finally:
        _quiet -= 1


def is_quiet() -> bool:
    """Whether only errors and questions are to be written to standard error."""
    return _quiet > 0


def is_broken_pipe(error: BaseException) -> bool:
    """Whether whoever read our output has gone; Windows calls the next write invalid."""
    known = (errno.EPIPE, errno.EINVAL) if sys.platform == "win32" else (errno.EPIPE,)
    return isinstance(error, OSError) and error.errno in known and error.filename is None


def say(text: str = "", *, newline: bool = True, matters: bool = False) -> None:
    """Write a line to standard error, made safe to show.

    A line that cannot be written is dropped: it must not spoil the answer. With --quiet only what
    `matters` is written: errors, and what belongs to a question.
    """
    if matters or not is_quiet():
        _write(printable(text), newline=newline)


def _write(text: str, *, newline: bool) -> None:
    with contextlib.suppress(OSError):
        click.echo(text, err=True, nl=newline)


class StatusLine:
    """A line that is redrawn in place on a terminal; elsewhere each text is a line of its own."""

    # The line that the cursor is on: drawing another one starts a new line first.
    _open: StatusLine | None = None

    def __init__(self) -> None:
        self.on_terminal = sys.stderr.isatty()
        self._shown = False

    @property
    def width(self) -> int:
        """Columns of the line: one less than the terminal has, so that it never wraps."""
        columns = 0
        if not os.environ.get("COLUMNS"):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                columns = os.get_terminal_size(sys.stderr.fileno()).columns
        return (columns or shutil.get_terminal_size().columns) - 1

    def draw(self, text: str) -> None:
        """Replace the text of the line."""
        if not self.on_terminal:
            say(text)
            return
        if StatusLine._open not in (None, self):
            say()
        StatusLine._open = self
        self._put(text)

    def flash(self, text: str) -> None:
        """Show the text until `erase`, or until other output overwrites it."""
        if not self.on_terminal:
            say(text)
            return
        self._put(text, back="\r")
        self._shown = True

    def erase(self) -> None:
        """Remove the text that `flash` shows."""
        if self._shown:
            self._put("", back="\r")
            self._shown = False

    def end(self) -> None:
        """Keep the line as it is; later output starts below it."""
        if StatusLine._open is self:
            StatusLine._open = None
            say()

    def _put(self, text: str, back: str = "") -> None:
        if not is_quiet():
            from edgesppo.terminal.cells import fitted  # its tables take a while to load

            _write(f"\r{fitted(one_line(text), self.width)}{back}", newline=False)
