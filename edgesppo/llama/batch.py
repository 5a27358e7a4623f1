"""Owns tokens on their way to one decode: plain arrays that native code can read.

Knows nothing of llama.cpp's library, only of the layout that its `llama_batch` points into.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Batch:
    """Tokens of one or many sequences on their way to one decode.

    Entry i: token id, position in its sequence, the sequence, and whether its logits are wanted.
    The arrays live as long as the batch, as native code points into them.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.n_tokens = 0
        self.native: Any = None  # the `llama_batch` that whoever decodes it has made of it
        self.token = (ctypes.c_int32 * capacity)()
        self.pos = (ctypes.c_int32 * capacity)()
        self.n_seq = (ctypes.c_int32 * capacity)(*([1] * capacity))
        self._seq = (ctypes.c_int32 * capacity)()
        stride = ctypes.sizeof(ctypes.c_int32)
        base = ctypes.addressof(self._seq)
        cell = ctypes.POINTER(ctypes.c_int32)
        self.seq_pointers = (cell * capacity)(
            *(ctypes.cast(base + i * stride, cell) for i in range(capacity))
        )
        self.logits = (ctypes.c_int8 * capacity)()

    def __len__(self) -> int:
        return self.n_tokens

    def clear(self) -> None:
        """Empty the batch."""
        self.n_tokens = 0

    def add(self, seq: int, position: int, tokens: Sequence[int], *, logits: int) -> int:
        """Append consecutive tokens of one sequence, the last `logits` of them marked.

        Returns the entry of the last.
        """
        start, end = self.n_tokens, self.n_tokens + len(tokens)
        if not tokens or end > self.capacity:
            raise ValueError(f"{len(tokens)} tokens do not fit behind {start} of {self.capacity}")
        self.token[start:end] = list(tokens)
        self.pos[start:end] = list(range(position, position + len(tokens)))
        self._seq[start:end] = [seq] * len(tokens)
        for place in range(start, end):
            self.logits[place] = int(place >= end - logits)
        self.n_tokens = end
        return end - 1
