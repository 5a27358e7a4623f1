"""Skip a GGUF array of strings, hundreds of thousands of them, fast and in bounded memory.

string:  length u64 | bytes
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesppo.gguf.lenient_utf8 import spelling_nul

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.gguf.file_bytes import FileBytes

MAX_STRING = 1_048_576
_WINDOW = 1 << 18  # bytes read at a time


class StringOutOfBounds(Exception):
    """A string reaches beyond the file; `length` is what it claims, None if even that does."""

    def __init__(self, length: int | None) -> None:
        super().__init__(length)
        self.length = length


@dataclass
class Vocabulary:
    """The strings of an array as a set of their hashes, to take less memory than the strings."""

    hashes: set[int] = field(default_factory=set)
    nul: bytes | None = None  # the first that contains U+0000, as llama.cpp reads it

    def __len__(self) -> int:
        """The number of different strings."""
        return len(self.hashes)

    def __contains__(self, text: bytes) -> bool:
        return hash(text) in self.hashes

    def move_from(self, texts: list[bytes]) -> None:
        """Add these strings and empty the list."""
        self.hashes.update(map(hash, texts))
        self.nul = spelling_nul(texts) if self.nul is None else self.nul
        texts.clear()


def skip_array(view: FileBytes | bytes, start: int, n: int, into: Vocabulary | None = None) -> int:
    """Where `n` strings from `start` on end; `into` collects them. Raises StringOutOfBounds."""
    unpack: Callable[[Any, int], tuple[int]] = struct.Struct("<Q").unpack_from
    texts, window, at, size = list[bytes](), b"", 0, 0  # the window begins at `start`
    for _ in range(n):
        if at + 8 > size:
            if into is not None:
                into.move_from(texts)
            start, at = start + at, 0
            window = view[start : start + _WINDOW]
            size = len(window)
            if size < 8:
                raise StringOutOfBounds(None)
        begin = at + 8
        at = begin + unpack(window, at)[0]
        if at > size:
            length = at - begin
            if length > MAX_STRING or start + at > len(view):
                raise StringOutOfBounds(length)
            start, begin, at = start + begin, 0, length
            window = view[start : start + max(length, _WINDOW)]
            size = len(window)
        if into is not None:
            texts.append(window[begin:at])
    if into is not None:
        into.move_from(texts)
    return start + at
