"""Owns columns: how wide text is on a terminal, and where a row of it ends. Pure.

A cell is what must not be torn apart (a letter with its accents, an emoji with its variation
selector) and the style it is written in. What a sequence joined by U+200D takes differs between
terminals; it counts as the sum of its parts, so that no row is ever too long.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from wcwidth import wcwidth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Cell = tuple[str, str]  # the text, and the style: what stands in ESC [ ... m

TAB = 8
_EMOJI_STYLE, _JOINER = "\ufe0f", "\u200d"


@functools.lru_cache(4096)
def _letter(letter: str) -> int:
    return max(0, wcwidth(letter))


def width(text: str) -> int:
    """Columns that a text without tabs and control characters takes."""
    return sum(_cell_width(cell) for cell, _ in cells(text))


def cells(text: str, style: str = "") -> Iterator[Cell]:
    """The cells of a text, all in one style."""
    held = ""
    for letter in text:
        joins = held.endswith(_JOINER) or (letter == _JOINER and held)
        if held and (joins or letter == _EMOJI_STYLE or (_letter(letter) == 0 and held != "\t")):
            held += letter
            continue
        if held:
            yield held, style
        held = letter
    if held:
        yield held, style


def _cell_width(cell: str) -> int:
    total = sum(_letter(letter) for letter in cell)
    return total + (total == 1 and _EMOJI_STYLE in cell)


def rows(row: Iterable[Cell], columns: int) -> list[list[Cell]]:
    """The cells in rows of so many columns at most, broken between words where that can be done.

    Spaces at the end of a row are dropped; a row that has no place to break is cut.
    """
    return [_without_end_spaces(line) for line in broken(row, columns)]


def broken(row: Iterable[Cell], columns: int) -> list[list[Cell]]:
    """The same with every cell: the spaces at the end of the rows may hang over the edge."""
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
    """Where a row that became too long is broken: after a space or a wide letter, else here."""
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
    """What stands in a row, without its styles."""
    return "".join(text for text, _ in row)


def n_rows(text: str, columns: int) -> int:
    """How many rows a terminal of so many columns takes for a line that it breaks by itself."""
    found, used = 1, 0
    for cell, _ in cells(text):
        wide = TAB - used % TAB if cell == "\t" else _cell_width(cell)
        if cell == "\t":
            used = min(used + wide, columns - 1)  # a tab stops at the last column
        elif used + wide > columns:
            found, used = found + 1, wide
        else:
            used += wide
    return found
