"""Renderers of a streamed answer: plain text, or Markdown that is rendered line by line.

A block is a line or a table. While it grows its text is written plainly, wrapped between words.
When it ends and contains Markdown, it is overwritten once, in one write: nothing flickers, and
what has scrolled away is not touched. A block that no longer fits the screen, or whose screen was
resized meanwhile, stays plain.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from edgesppo.system.sanitize import Printable
from edgesppo.terminal import cells, markdown, style
from edgesppo.terminal.highlight import Highlighter

if TYPE_CHECKING:
    import re

    from edgesppo.terminal.cells import Cell
    from edgesppo.terminal.screen import Screen

_LONGEST_FENCE = 200
_TAB = "    "
# Synchronised update: terminals that support it draw what is between at once, others ignore it.
_BEGIN_SYNC, _END_SYNC = "\x1b[?2026h", "\x1b[?2026l"


class Renderer(Protocol):
    """Shows the text of an answer as it streams; `started` is True after the first text."""

    started: bool

    def feed(self, text: str) -> None:
        """Show more text."""

    def finish(self) -> None:
        """Show the rest, and end the last line."""


class PlainText:
    """Shows an answer unchanged, but on a terminal made safe to show."""

    def __init__(self, screen: Screen) -> None:
        self.started = False
        self._screen = screen
        self._safe = Printable() if sys.stdout.isatty() else None

    def feed(self, text: str) -> None:
        """Write the text."""
        if text:
            self.started = True
            self._screen.write(text if self._safe is None else self._safe.decode(text))

    def finish(self) -> None:
        """End the line."""
        self._screen.write("\n" if self._safe is None else self._safe.flush() + "\n")


class StyledText:
    """Shows an answer as rendered Markdown."""

    def __init__(self, screen: Screen) -> None:
        self.started = False
        self._screen = screen
        self._symbols = markdown.Symbols() if screen.utf8 else markdown.ASCII
        self._safe = Printable()
        self._line = ""  # the source of the growing line
        self._block = _Block(screen)
        self._table: list[str] = []  # the source of the table rows before it
        self._fence: re.Match[str] | None = None
        self._code: Highlighter | None = None

    def feed(self, text: str) -> None:
        """Show more text, and render every line that is now complete."""
        self.started = self.started or bool(text)
        self._feed(self._safe.decode(text))

    def _feed(self, text: str) -> None:
        first, *others = text.split("\n")
        self._grow(first)
        for part in others:
            self._end_line()
            self._grow(part)

    def finish(self) -> None:
        """Render the last line or table."""
        self._feed(self._safe.flush())
        if self._line:
            self._end_line()
        self._close_table()

    def _grow(self, text: str) -> None:
        before = self._line
        self._line += text
        if self._table and not before.strip():
            # The first letter decides whether the table continues.
            if not self._line.strip():
                return
            if not markdown.is_row(self._line):
                self._close_table()
            text = self._line
        if text:
            self._block.write(text, wrapped=self._code is None)

    def _end_line(self) -> None:
        source, self._line = self._line, ""
        if self._code is not None:
            self._end_code_line(source, self._code)
            return
        if markdown.is_row(source):
            self._table.append(source)
            self._block.newline()
            return
        self._close_table()
        if len(source) <= _LONGEST_FENCE and (fence := markdown.FENCE.fullmatch(source)):
            self._fence, self._code = fence, Highlighter(fence[3])
            self._block.replace([[*cells.cells(source, style.FAINT)]])
        else:
            self._end_prose(source.replace("\t", _TAB))

    def _end_code_line(self, source: str, code: Highlighter) -> None:
        assert self._fence is not None, "code comes after a fence"
        margin, marks = self._fence[1], self._fence[2]
        text = source.strip()
        if len(text) >= len(marks) and text == marks[0] * len(text):
            self._code = None
            self._block.replace([[*cells.cells(source, style.FAINT)]])
        else:
            self._block.replace([code.line(source.removeprefix(margin))])

    def _end_prose(self, source: str) -> None:
        columns = self._screen.text_columns
        try:
            rendered = markdown.line(source, self._symbols, columns)
        except Exception:  # a bug in rendering must not cost an answer
            rendered = markdown.Line([*cells.cells(source)])
        if rendered.indent or rendered.cells != [*cells.cells(source)]:
            self._block.replace(markdown.rows(rendered, columns))
        else:
            self._block.end()

    def _close_table(self) -> None:
        sources, self._table = self._table, []
        if sources:
            try:
                rows = markdown.table(sources, self._symbols, self._screen.size.columns - 1)
            except Exception:
                rows = None
            if rows is None:
                self._block.reset()
            else:
                self._block.replace(rows)


class _Block:
    """The plain rows of a growing block on the screen, which may be overwritten when it ends."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.reset()

    def reset(self) -> None:
        """Keep what is on the screen, and start a new block at the start of a row."""
        self._above = 0  # rows above the growing one
        self._row = ""
        self._size: tuple[int, int] | None = None  # of the screen when the block began
        self._columns = 0
        self._wrapped = True

    def write(self, text: str, *, wrapped: bool) -> None:
        """Write more text; `wrapped` wraps it between words, otherwise the terminal wraps it."""
        if self._size is None:
            self._size, self._columns = self._screen.size, self._screen.text_columns
        self._wrapped = wrapped
        if not wrapped:
            self._row += text
            self._screen.write(text)
            return
        was, text = self._row.rstrip(" "), self._row + text.replace("\t", _TAB)
        rows = [
            cells.text_of(row) for row in cells.wrap_untrimmed(cells.cells(text), self._columns)
        ]
        first, *more = (row.rstrip(" ") for row in rows)
        out = first[len(was) :] if first.startswith(was) else f"\r\x1b[K{first}"
        self._screen.write("\n".join([out, *more]))
        self._above += len(more)
        self._row = rows[-1]

    def newline(self) -> None:
        """End the row, but not the block."""
        self._screen.write("\n")
        self._above += self._height()
        self._row = ""

    def end(self) -> None:
        """End the block and leave it plain."""
        self._screen.write("\n")
        self.reset()

    def replace(self, rows: list[list[Cell]]) -> None:
        """Overwrite the block with rendered rows; leave it plain if that is no longer possible."""
        above = self._above + self._height() - 1
        if self._size is not None and (
            self._size != self._screen.size or above >= self._screen.size.lines - 1
        ):
            if self._row:
                self._screen.write("\n")
        else:
            up = f"\x1b[{above}A" if above else ""
            text = "".join(style.render(row) + "\n" for row in rows)
            self._screen.write(f"{_BEGIN_SYNC}\r{up}\x1b[J{text}{_END_SYNC}")
        self.reset()

    def _height(self) -> int:
        """The number of rows that the growing row takes on the screen."""
        return 1 if self._wrapped else cells.n_rows(self._row, self._screen.size.columns)
