"""Owns lists in columns as they fit a terminal: what stands last hangs beside the others. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.terminal import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARGIN, _GAP = "  ", "  "
_WIDEST = 24  # columns of what makes its whole column wide; a wider one gets a row of its own
_ROOM = 30  # columns that the last one needs beside the others; with less it stands below
_BELOW = 6  # its indent there


def listed(items: Sequence[Sequence[str]], columns: int | None) -> list[str]:
    """The items' rows, each of so many columns at most; None: as wide as they are.

    Every item has the same number of parts. No word is broken.
    """
    heads = [item[:-1] for item in items]
    widths = [
        max((cells.width(part) for part in parts if cells.width(part) <= _WIDEST), default=0)
        for parts in zip(*heads, strict=True)
    ]
    found: list[str] = []
    for head, text in zip(heads, (item[-1] for item in items), strict=True):
        aligned = (_aligned(part, wide) + _GAP for part, wide in zip(head, widths, strict=True))
        found += _item(_MARGIN + "".join(aligned), text, widths, columns)
    return found


def _item(head: str, text: str, widths: Sequence[int], columns: int | None) -> list[str]:
    indent = len(_MARGIN) + sum(wide + len(_GAP) for wide in widths)
    if columns is None:
        return [(head + text).rstrip()]
    if columns - indent < _ROOM:
        indent = _BELOW
    first, *rest = between_words(text, columns - indent)
    rows = [" " * indent + row for row in rest]
    if cells.width(head) <= indent:
        return [(head + first).rstrip(), *rows]
    return [head.rstrip(), *([" " * indent + first] if first else []), *rows]


def _aligned(part: str, wide: int) -> str:
    return part + " " * max(0, wide - cells.width(part))


def between_words(text: str, columns: int) -> list[str]:
    """A line broken where it has spaces, and nowhere else: what is copied stays in one piece.

    What follows stands under its first letter. A word that no row holds is not moved to one.
    """
    margin = text[: len(text) - len(text.lstrip(" "))]
    rows, row = [], margin
    for word in text[len(margin) :].split(" "):
        longer = f"{row} {word}" if row.strip() else row + word
        fits = cells.width(margin + word) <= columns
        if row.strip() and fits and cells.width(longer) > columns:
            rows.append(row.rstrip(" "))
            row = margin + word
        else:
            row = longer
    return [*rows, row]
