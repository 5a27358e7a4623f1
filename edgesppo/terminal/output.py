"""What is said on standard error, beside an answer: whole lines, and one line redrawn in place."""

from __future__ import annotations

import contextlib
import shutil
import sys

import click


def aside(text: str = "", *, newline: bool = True) -> None:
    """Write to standard error; where that fails, what goes on beside it stands all the same."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True, nl=newline)


class StatusLine:
    """A line on a terminal that is drawn again in place; elsewhere every drawing is a line."""

    # The line that the cursor stands behind: another one that is drawn begins below it.
    _open: StatusLine | None = None

    def __init__(self) -> None:
        self.on_terminal = sys.stderr.isatty()
        self._shown = False

    @property
    def width(self) -> int:
        """Columns of the line: one less than the terminal has, or each drawing would begin anew."""
        return shutil.get_terminal_size().columns - 1

    def draw(self, text: str) -> None:
        """Show the text, in place of what the line showed."""
        if not self.on_terminal:
            aside(text)
            return
        if StatusLine._open not in (None, self):
            aside()
        StatusLine._open = self
        self._put(text)

    def flash(self, text: str) -> None:
        """Show the text until `erase`, or until something else is written over it."""
        if not self.on_terminal:
            aside(text)
            return
        self._put(text, back="\r")
        self._shown = True

    def erase(self) -> None:
        """Take away what `flash` shows."""
        if self._shown:
            self._put("", back="\r")
            self._shown = False

    def end(self) -> None:
        """Leave the line as it stands; what is written next begins below it."""
        if StatusLine._open is self:
            StatusLine._open = None
            aside()

    def _put(self, text: str, back: str = "") -> None:
        width = self.width
        aside("\r" + text[:width].ljust(width) + back, newline=False)
