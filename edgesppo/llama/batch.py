"""The tokens of one decode, in arrays with the layout that llama.cpp's `llama_batch` points to."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Batch:
    """The tokens of one decode, from one or many sequences; at most `capacity` of them.

    Entry i holds a token id, its position in its sequence, the sequence, and whether its logits
    are wanted. The arrays live as long as the batch, because native code points into them.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.n_tokens = 0
        self.native: Any = None  # the `llama_batch` over these arrays, set by the first decode
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
        """Append consecutive tokens of one sequence, and ask for the logits of the last `logits`.

        `position` is the first token's position in the sequence. Returns the last token's entry.
        Raises ValueError when there are no tokens, or more than there is room for.
        """
        start, end = self.n_tokens, self.n_tokens + len(tokens)
        if not tokens or end > self.capacity:
            raise ValueError(f"{len(tokens)} tokens do not fit behind {start} of {self.capacity}")
        self.token[start:end] = list(tokens)
        self.pos[start:end] = list(range(position, position + len(tokens)))
        self._seq[start:end] = [seq] * len(tokens)
        for entry in range(start, end):
            self.logits[entry] = int(entry >= end - logits)
        self.n_tokens = end
        return end - 1
