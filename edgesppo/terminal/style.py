"""Owns the few styles that the chat is written in, as the numbers of ESC [ ... m.

Only what can be read on light and on dark: weight, and of the sixteen colours those that every
palette keeps away from both black and white. What differs in colour differs in words, too.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.terminal.cells import Cell

PLAIN = ""
BOLD, FAINT, ITALIC, UNDERLINE, STRUCK = "1", "2", "3", "4", "9"
RED, GREEN, MAGENTA = "31", "32", "35"


def join(*styles: str) -> str:
    """Several styles at once."""
    return ";".join(dict.fromkeys(part for style in styles for part in style.split(";") if part))


def written(row: Iterable[Cell]) -> str:
    """A row as a terminal takes it: every style ends where its text does."""
    return "".join(
        styled("".join(text for text, _ in run), style)
        for style, run in groupby(row, key=lambda cell: cell[1])
    )


def styled(text: str, style: str) -> str:
    """A text in a style."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text
