"""A whole Markdown document as rows of styled text, at a given width.

Unlike an answer, which is shown line by line as it comes, a document is at hand: the lines of a
paragraph are joined and wrapped anew, and a table that is too wide becomes a list. The rest is
drawn as in the chat.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgesppo.terminal import cells, markdown, style
from edgesppo.terminal.highlight import Highlighter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.terminal.cells import Cell
    from edgesppo.terminal.markdown import Symbols

_MARGIN = "  "  # before the rows of a block of code
_INDENTED = re.compile(r" {4,}\S")
# A line that begins something of its own, instead of going on with the paragraph above it.
_BEGINS = re.compile(r" {0,3}(#{1,6}[ \t]|> ?)|[ \t]*([-*+]|\d{1,9}[.)])[ \t]+\S|[ \t]*\|")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}")


def rows(text: str, symbols: Symbols, columns: int) -> list[str]:
    """The rows of a document, with escape sequences, each at most `columns` wide.

    Only code is not wrapped: its lines may be longer.
    """
    return [style.render(row) for row in _Document(text, symbols, columns).rows()]


class _Document:
    def __init__(self, text: str, symbols: Symbols, columns: int) -> None:
        self._lines = text.split("\n")
        self._symbols = symbols
        self._columns = columns
        self._at = 0

    def rows(self) -> Iterator[list[Cell]]:
        """Each block in turn. Several empty lines are one, and there is none at the end."""
        while self._lines and not self._lines[-1].strip():
            self._lines.pop()
        was_blank = True
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line.strip():
                self._at += 1
                if not was_blank:
                    yield []
                was_blank = True
                continue
            yield from self._block(line, was_blank=was_blank)
            was_blank = False

    def _block(self, line: str, *, was_blank: bool) -> Iterator[list[Cell]]:
        if fence := markdown.FENCE.fullmatch(line):
            return self._fenced(fence)
        if was_blank and _INDENTED.match(line) and not _BEGINS.match(line):
            return self._indented()
        if markdown.is_row(line):
            return self._table()
        return self._paragraph()

    def _fenced(self, fence: re.Match[str]) -> Iterator[list[Cell]]:
        """The code between two fences, without them."""
        code, margin, marks = Highlighter(fence[3]), fence[1], fence[2]
        lines = []
        self._at += 1
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if line.strip().startswith(marks) and not line.strip().strip(marks[0]):
                break
            lines.append(line.removeprefix(margin))
        longest = max(map(cells.width, lines), default=0)
        room = self._columns - longest - len(margin)
        before = margin + _MARGIN[: max(0, room)]  # a recorded screen needs every column
        for line in lines:
            yield [(before, ""), *code.line(line)] if line.strip() else []

    def _indented(self) -> Iterator[list[Cell]]:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.strip() and not line.startswith("    "):
                return
            if not line.strip() and not self._goes_on(self._at):
                return
            self._at += 1
            yield [(_MARGIN + line.removeprefix("    "), "")] if line.strip() else []

    def _goes_on(self, at: int) -> bool:
        """Whether the next line that is not empty is indented code, too."""
        following = (line for line in self._lines[at:] if line.strip())
        return next(following, "").startswith("    ")

    def _table(self) -> Iterator[list[Cell]]:
        start = self._at
        while self._at < len(self._lines) and markdown.is_row(self._lines[self._at]):
            self._at += 1
        sources = self._lines[start : self._at]
        drawn = markdown.table(sources, self._symbols, self._columns)
        if drawn is not None:
            yield from drawn
            return
        for item in markdown.table_as_list(sources):
            yield from self._wrapped(item)

    def _paragraph(self) -> Iterator[list[Cell]]:
        """A heading or a rule; else lines up to the next empty one, joined."""
        first = self._lines[self._at]
        self._at += 1
        if first.lstrip().startswith("#") or _RULE.fullmatch(first):
            yield from self._wrapped(first)
            return
        parts = [first.rstrip()]
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line.strip() or _BEGINS.match(line) or markdown.FENCE.fullmatch(line):
                break
            parts.append(line.strip())
            self._at += 1
        yield from self._wrapped(" ".join(parts))

    def _wrapped(self, source: str) -> Iterator[list[Cell]]:
        yield from markdown.rows(markdown.line(source, self._symbols, self._columns), self._columns)


def width(row: str) -> int:
    """The columns of a row, without its escape sequences."""
    return cells.width(re.sub(r"\x1b\[[\d;]*m", "", row))
