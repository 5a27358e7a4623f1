"""Owns the walk over a GGUF array of texts: hundreds of thousands, in bounded memory, fast.

    text:  length u64 | bytes

Knows nothing of what the texts are for.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_STRING = 1_048_576
_WINDOW = 1 << 18  # bytes that are looked at together: a slice of bytes is faster than of a map


class Misfit(Exception):
    """A text that does not lie inside the file; `length` is what it claims, None without one."""

    def __init__(self, length: int | None) -> None:
        super().__init__(length)
        self.length = length


@dataclass
class Vocabulary:
    """What is known of texts that were walked over: their hashes, not the texts."""

    hashes: set[int] = field(default_factory=set)
    has_nul: bool = False

    def __len__(self) -> int:
        """How many of them differ."""
        return len(self.hashes)

    def __contains__(self, text: bytes) -> bool:
        return hash(text) in self.hashes

    def take(self, texts: list[bytes]) -> None:
        """Add these and empty the list."""
        self.hashes.update(map(hash, texts))
        self.has_nul = self.has_nul or b"\0" in b"".join(texts)
        texts.clear()


def release(view: mmap.mmap | bytes, start: int, end: int) -> None:
    """Let go of the memory of a stretch that was read; where a file is mapped, it counts as ours.

    The stretch can still be read again.
    """
    first = start - start % mmap.PAGESIZE
    if isinstance(view, mmap.mmap) and end > first and hasattr(mmap, "MADV_DONTNEED"):
        view.madvise(mmap.MADV_DONTNEED, first, end - first)


def walk(view: mmap.mmap | bytes, start: int, n: int, into: Vocabulary | None = None) -> int:
    """Where `n` texts from `start` on end; `into` is told of all of them. Raises Misfit."""
    unpack: Callable[[Any, int], tuple[int]] = struct.Struct("<Q").unpack_from
    texts, window, at, size = list[bytes](), b"", 0, 0  # the window begins at `start`
    for _ in range(n):
        if at + 8 > size:
            release(view, start, start + at)
            if into is not None:
                into.take(texts)
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
        if into is not None:
            texts.append(window[begin:at])
    if into is not None:
        into.take(texts)
    release(view, start, start + at)
    return start + at
