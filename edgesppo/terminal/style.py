"""Text styles, as the parameters of ESC [ ... m (SGR).

Only styles that are readable on light and dark backgrounds: bold, faint, italic, and those of the
sixteen colours that every palette keeps away from black and white. Colour never carries meaning
alone: what differs in colour differs in text, too.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.terminal.cells import Cell

PLAIN = ""
BOLD, FAINT, ITALIC, UNDERLINE, STRUCK = "1", "2", "3", "4", "9"
GREEN, MAGENTA = "32", "35"


def join(*styles: str) -> str:
    """Combine styles into one."""
    return ";".join(dict.fromkeys(part for style in styles for part in style.split(";") if part))


def render(row: Iterable[Cell]) -> str:
    """A row as text with escape sequences; every style is reset after its text."""
    return "".join(
        styled("".join(text for text, _ in run), style)
        for style, run in groupby(row, key=lambda cell: cell[1])
    )


def styled(text: str, style: str) -> str:
    """A text with the escape sequences of a style."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text
