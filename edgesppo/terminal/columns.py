"""Lists in aligned columns, the last of which is wrapped to fit the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.terminal import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARGIN, _GAP = "  ", "  "
_WIDEST = 24  # a wider entry does not widen its column, but gets a row of its own
_ROOM = 30  # the least width of the last column; with less it goes below the others
_BELOW = 6  # its indent in that case


def format_columns(items: Sequence[Sequence[str]], columns: int | None) -> list[str]:
    """The rows of a list, at most `columns` wide (None: unlimited).

    Every item has the same number of parts, one for each column. Words are not broken, so a row
    with a very long word may be wider.
    """
    heads = [item[:-1] for item in items]
    widths = [
        max((cells.width(part) for part in parts if cells.width(part) <= _WIDEST), default=0)
        for parts in zip(*heads, strict=True)
    ]
    rows: list[str] = []
    for head, text in zip(heads, (item[-1] for item in items), strict=True):
        aligned = (_aligned(part, wide) + _GAP for part, wide in zip(head, widths, strict=True))
        rows += _item(_MARGIN + "".join(aligned), text, widths, columns)
    return rows


def _item(head: str, text: str, widths: Sequence[int], columns: int | None) -> list[str]:
    indent = len(_MARGIN) + sum(wide + len(_GAP) for wide in widths)
    if columns is None:
        return [(head + text).rstrip()]
    if columns - indent < _ROOM:
        indent = _BELOW
    first, *rest = wrap_words(text, columns - indent)
    rows = [" " * indent + row for row in rest]
    if cells.width(head) <= indent:
        return [(head + first).rstrip(), *rows]
    return [head.rstrip(), *([" " * indent + first] if first else []), *rows]


def _aligned(part: str, wide: int) -> str:
    return part + " " * max(0, wide - cells.width(part))


def wrap_words(text: str, columns: int) -> list[str]:
    """Wrap a line at spaces only, so that a path or an id can be copied in one piece.

    Rows after the first keep the line's indent. A word longer than a row stays where it is
    instead of starting a new row.
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
