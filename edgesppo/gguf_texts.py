"""Owns the walk over a GGUF array of texts: hundreds of thousands, in bounded memory, fast.

    text:  length u64 | bytes

Knows nothing of what the texts are for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

MAX_STRING = 16_777_216
_WINDOW = 1 << 20  # bytes that are looked at together: a slice of bytes is faster than of a map


class Misfit(Exception):
    """A text that does not lie inside the file; `length` is what it claims, None without one."""

    def __init__(self, length: int | None) -> None:
        super().__init__(length)
        self.length = length


def walk(view: mmap.mmap | bytes, start: int, n: int, *, distinct: bool) -> tuple[int, int]:
    """Where `n` texts from `start` on end, and how many of them differ (all, unless `distinct`).

    Their hashes are kept, not the texts. Raises Misfit.
    """
    unpack: Callable[[Any, int], tuple[int]] = struct.Struct("<Q").unpack_from
    hashes, window, at, size = set[int](), b"", 0, 0  # the window begins at `start`
    for _ in range(n):
        if at + 8 > size:
            start, at = start + at, 0
            window = view[start : start + _WINDOW]
            size = len(window)
            if size < 8:
                raise Misfit(None)
        begin = at + 8
        at = begin + unpack(window, at)[0]
        if at > size:
            length = at - begin
            if length > MAX_STRING or start + at > len(view):
                raise Misfit(length)
            start, begin, at = start + begin, 0, length
            window = view[start : start + max(length, _WINDOW)]
            size = len(window)
        if distinct:
            hashes.add(hash(window[begin:at]))
    return start + at, len(hashes) if distinct else n
