"""Sets of characters as sorted, disjoint ranges of code points, both ends included."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Charset: TypeAlias = tuple[tuple[int, int], ...]

# All characters; surrogates are not characters.
ANY: Charset = ((0, 0xD7FF), (0xE000, 0x10FFFF))


def of(letters: str) -> Charset:
    """The set of these characters."""
    return union((ord(letter), ord(letter)) for letter in letters)


def union(ranges: Iterable[tuple[int, int]]) -> Charset:
    """The set of all characters in the ranges, which may overlap."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def intersection(a: Charset, b: Charset) -> Charset:
    """The characters in both sets."""
    ranges = []
    i = j = 0
    while i < len(a) and j < len(b):
        low, high = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if low <= high:
            ranges.append((low, high))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(ranges)


def difference(a: Charset, b: Charset) -> Charset:
    """The characters of `a` that are not in `b`."""
    return intersection(a, _gaps(b))


def _gaps(a: Charset) -> Charset:
    ranges = []
    start = 0
    for low, high in a:
        if low > start:
            ranges.append((start, low - 1))
        start = high + 1
    return (*ranges, (start, 0x10FFFF)) if start <= 0x10FFFF else tuple(ranges)


def atoms(sets: list[Charset]) -> dict[frozenset[int], Charset]:
    """The characters grouped by the sets (their indices) that contain them; at least one."""
    events = sorted(
        event
        for index, charset in enumerate(sets)
        for low, high in charset
        for event in ((low, 1, index), (high + 1, 0, index))
    )
    inside: dict[int, int] = {}
    grouped: dict[frozenset[int], list[tuple[int, int]]] = {}
    before = 0
    for at, opens, index in events:
        if at > before and inside:
            grouped.setdefault(frozenset(inside), []).append((before, at - 1))
        before = at
        count = inside.pop(index, 0) + (1 if opens else -1)
        if count:
            inside[index] = count
    return {members: union(ranges) for members, ranges in grouped.items()}
