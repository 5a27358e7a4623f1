"""Owns an answer as it appears: what grows is plain, what is finished is rendered once.

A block is a line, or a table. While it grows its text is written as it comes, broken between
words; when it ends and has anything to render, it is written over in one stroke. Never again:
nothing flickers, and what has scrolled away is left alone. A block that no longer fits the screen,
or whose screen changed its size meanwhile, stays plain.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from edgesppo.system.sanitize import printable
from edgesppo.terminal import cells, markdown, style
from edgesppo.terminal.highlight import Highlighter

if TYPE_CHECKING:
    from edgesppo.terminal.cells import Cell
    from edgesppo.terminal.screen import Screen

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^\s`{]*)[^`]*")
_LONGEST_FENCE = 200
_TAB = "    "
# A terminal that understands them shows what is between in one piece; others ignore them.
_AT_ONCE, _DONE = "\x1b[?2026h", "\x1b[?2026l"


class Renderer(Protocol):
    """Takes an answer's text as it comes; `begun` once there was any."""

    begun: bool

    def feed(self, text: str) -> None:
        """Show more of it."""

    def finish(self) -> None:
        """Show what is left, and end the line."""


class PlainText:
    """The answer as it is; on a terminal, control characters are made visible."""

    def __init__(self, screen: Screen) -> None:
        self.begun = False
        self._screen = screen

    def feed(self, text: str) -> None:
        """Write it."""
        if text:
            self.begun = True
            self._screen.write(self._screen.clean(text))

    def finish(self) -> None:
        """End the line."""
        self._screen.write("\n")


class StyledText:
    """The answer as Markdown."""

    def __init__(self, screen: Screen) -> None:
        self.begun = False
        self._screen = screen
        self._signs = markdown.Signs() if screen.utf8 else markdown.ASCII
        self._line = ""  # the source of the line that grows
        self._block = _Block(screen)
        self._table: list[str] = []  # lines before it that are rows
        self._fence: re.Match[str] | None = None
        self._code: Highlighter | None = None

    def feed(self, text: str) -> None:
        """Show more: every line that ends here is finished."""
        self.begun = self.begun or bool(text)
        first, *others = printable(text).split("\n")
        self._grow(first)
        for part in others:
            self._end_line()
            self._grow(part)

    def finish(self) -> None:
        """Finish what is left."""
        if self._line:
            self._end_line()
        self._close_table()

    def _grow(self, text: str) -> None:
        before = self._line
        self._line += text
        if self._table and not before.strip():
            # Whether the table goes on shows at the first letter.
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
        if len(source) <= _LONGEST_FENCE and (fence := _FENCE.fullmatch(source)):
            self._fence, self._code = fence, Highlighter(fence[3])
            self._block.replace([[*cells.cells(source, style.FAINT)]])
        else:
            self._end_prose(source.replace("\t", _TAB))

    def _end_code_line(self, source: str, code: Highlighter) -> None:
        assert self._fence is not None, "code stands behind a fence"
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
            found = markdown.line(source, self._signs, columns)
        except Exception:  # how it looks must never cost an answer
            found = markdown.Line([*cells.cells(source)])
        if found.indent or found.cells != [*cells.cells(source)]:
            self._block.replace(_rows(found, columns))
        else:
            self._block.end()

    def _close_table(self) -> None:
        sources, self._table = self._table, []
        if sources:
            try:
                rows = markdown.table(sources, self._signs, self._screen.size.columns - 1)
            except Exception:
                rows = None
            if rows is None:
                self._block.forget()
            else:
                self._block.replace(rows)


def _rows(found: markdown.Line, columns: int) -> list[list[Cell]]:
    """The rows of a line; of an item or a quote those after the first behind its indent."""
    first, *more = cells.rows(found.cells, columns)
    if not more or not found.indent:
        return [first, *more]
    rest = found.cells[len(first) :]
    while rest and rest[0][0] == " ":
        rest = rest[1:]
    room = max(10, columns - cells.width(found.indent))
    indent = [*cells.cells(found.indent, style.FAINT)]
    return [first, *([*indent, *row] for row in cells.rows(rest, room))]


class _Block:
    """What stands plain on the screen and may be written over: rows, the last of which grows."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.forget()

    def forget(self) -> None:
        """What stands there stays; the next block begins at the start of a row."""
        self._above = 0  # rows over the one that grows
        self._row = ""
        self._size: tuple[int, int] | None = None  # of the screen when the block began
        self._columns = 0
        self._wrapped = True

    def write(self, text: str, *, wrapped: bool) -> None:
        """Show more; `wrapped` breaks rows between words, else the terminal breaks them."""
        if self._size is None:
            self._size, self._columns = self._screen.size, self._screen.text_columns
        self._wrapped = wrapped
        if not wrapped:
            self._row += text
            self._screen.write(text)
            return
        was, text = self._row.rstrip(" "), self._row + text.replace("\t", _TAB)
        rows = [cells.text_of(row) for row in cells.broken(cells.cells(text), self._columns)]
        first, *more = (row.rstrip(" ") for row in rows)
        out = first[len(was) :] if first.startswith(was) else f"\r\x1b[K{first}"
        self._screen.write("\n".join([out, *more]))
        self._above += len(more)
        self._row = rows[-1]

    def newline(self) -> None:
        """The row is at its end, the block is not."""
        self._screen.write("\n")
        self._above += self._height()
        self._row = ""

    def end(self) -> None:
        """The block stays as it stands."""
        self._screen.write("\n")
        self.forget()

    def replace(self, rows: list[list[Cell]]) -> None:
        """Write rendered rows over it, or end it where that can no longer be done."""
        above = self._above + self._height() - 1
        if self._size is not None and (
            self._size != self._screen.size or above >= self._screen.size.lines - 1
        ):
            if self._row:
                self._screen.write("\n")
        else:
            up = f"\x1b[{above}A" if above else ""
            text = "".join(style.written(row) + "\n" for row in rows)
            self._screen.write(f"{_AT_ONCE}\r{up}\x1b[J{text}{_DONE}")
        self.forget()

    def _height(self) -> int:
        """Rows that the growing one takes on the screen."""
        return 1 if self._wrapped else cells.n_rows(self._row, self._screen.size.columns)
