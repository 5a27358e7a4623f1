"""The width of text in terminal columns, and wrapping it into rows.

A cell is a unit that must not be split (a letter with its accents, an emoji with its variation
selector), together with its style. Terminals disagree on the width of a sequence joined by
U+200D; it counts as the sum of its parts, so that no row is ever too long.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from wcwidth import wcwidth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Cell = tuple[str, str]  # text, style: the parameters of ESC [ ... m

TAB = 8
_EMOJI_STYLE, _JOINER = "\ufe0f", "\u200d"


@functools.lru_cache(4096)
def _char_width(letter: str) -> int:
    return max(0, wcwidth(letter))


def width(text: str) -> int:
    """The number of columns of a text that has no tabs or control characters."""
    return sum(_cell_width(cell) for cell, _ in cells(text))


def fitted(text: str, columns: int) -> str:
    """The text, cut or filled with spaces to take exactly so many columns."""
    shown, used = "", 0
    for cell, _ in cells(text):
        if used + _cell_width(cell) > columns:
            break
        shown += cell
        used += _cell_width(cell)
    return shown + " " * (columns - used)


def cells(text: str, style: str = "") -> Iterator[Cell]:
    """Split a text into cells, all in one style."""
    cell = ""
    for letter in text:
        joins = cell.endswith(_JOINER) or (letter == _JOINER and cell)
        if cell and (
            joins or letter == _EMOJI_STYLE or (_char_width(letter) == 0 and cell != "\t")
        ):
            cell += letter
            continue
        if cell:
            yield cell, style
        cell = letter
    if cell:
        yield cell, style


def _cell_width(cell: str) -> int:
    total = sum(_char_width(letter) for letter in cell)
    return total + (total == 1 and _EMOJI_STYLE in cell)


def wrap(row: Iterable[Cell], columns: int) -> list[list[Cell]]:
    """Wrap cells into rows of at most `columns` columns, between words where possible.

    Spaces at the end of a row are dropped; a word that is longer than a row is cut.
    """
    return [_without_end_spaces(line) for line in wrap_untrimmed(row, columns)]


def wrap_untrimmed(row: Iterable[Cell], columns: int) -> list[list[Cell]]:
    """Wrap like `wrap`, but keep every cell: spaces at the end of a row may exceed `columns`."""
    done: list[list[Cell]] = []
    line: list[Cell] = []
    used = 0
    for cell in row:
        wide = _cell_width(cell[0])
        if used + wide > columns and line and cell[0] != " ":
            at = _break(line)
            done.append(line[:at])
            line = line[at:]
            used = sum(_cell_width(text) for text, _ in line)
        line.append(cell)
        used += wide
    return [*done, line]


def _break(line: Sequence[Cell]) -> int:
    """The index at which to break a row: after the last space or wide letter, else its end."""
    for at in range(len(line) - 1, 0, -1):
        text = line[at][0]
        if text == " " or _cell_width(text) == 2:
            return at + 1
    return len(line)


def _without_end_spaces(line: list[Cell]) -> list[Cell]:
    end = len(line)
    while end and line[end - 1][0] == " ":
        end -= 1
    return line[:end]


def text_of(row: Iterable[Cell]) -> str:
    """The text of a row without its styles."""
    return "".join(text for text, _ in row)


def n_rows(text: str, columns: int) -> int:
    """The number of rows that a terminal needs for a line that it wraps by itself."""
    n, used = 1, 0
    for cell, _ in cells(text):
        wide = TAB - used % TAB if cell == "\t" else _cell_width(cell)
        if cell == "\t":
            used = min(used + wide, columns - 1)  # a tab stops at the last column
        elif used + wide > columns:
            n, used = n + 1, wide
        else:
            used += wide
    return n
