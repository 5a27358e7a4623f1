"""Owns the KV cache's sequences: which ids each holds, and what of them a new prompt can keep.

A slot's `ids` grow only after a decode succeeded, so an interrupt at any point leaves at most
extra cells behind; `forget_extra` removes those. Token ids only; knows nothing of sampling.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.context import Context


# What a prompt found in the cache: nothing of use, an earlier prompt and its answer, cells that
# another sequence holds, or cells that came from a file.
NOTHING, EARLIER, SHARED, RESTORED = "nothing", "earlier", "shared", "restored"


@dataclass(eq=False)
class Slot:
    """One sequence of the cache: its number and the ids that it holds from position 0 on.

    `reused` says what the prompt that has it, or had it last, found in the cache.
    """

    seq: int
    ids: list[int] = field(default_factory=list)
    busy: bool = False
    last_used: float = 0.0
    reused: str = NOTHING
    restored: bool = False


class KVCache:
    """The slots of one context. `n_swa` is the sliding window's length in tokens."""

    def __init__(self, context: Context, n_seqs: int, n_swa: int) -> None:
        self._context = context
        self._n_swa = n_swa
        self._slots = [Slot(seq) for seq in range(n_seqs)]

    def take(self, tokens: Sequence[int]) -> Slot | None:
        """A free slot for a prompt, holding what it shares with it; None when all are busy.

        It is the free one that shares the most. Where a busy one shares more, a free one takes
        part in its cells: a system text is held once, whoever uses it.
        """
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            return None
        slot = max(free, key=lambda s: (_common(s.ids, tokens), -s.last_used))
        keep = self._keepable(slot, tokens)
        lender = max(self._slots, key=lambda s: self._keepable(s, tokens))
        shared = self._keepable(lender, tokens)
        if shared > keep:
            slot = min(free, key=lambda s: (len(s.ids) > 0, s.last_used))
            self._share(lender, slot, shared)
        else:
            self._shorten(slot, keep)
            slot.reused = (RESTORED if slot.restored else EARLIER) if keep else NOTHING
        slot.restored = False
        slot.busy = True
        return slot

    def held(self, tokens: Sequence[int]) -> int:
        """How many of a prompt's tokens need not be prefilled."""
        return max(self._keepable(slot, tokens) for slot in self._slots)

    def state(self, tokens: Sequence[int], limit: int) -> tuple[list[int], memoryview] | None:
        """The ids and cells of the slot that shares the most with `tokens`, for `put`.

        None where none shares anything, or its cells take more than `limit` bytes.
        """
        slot = max(self._slots, key=lambda s: _common(s.ids, tokens))
        if not _common(slot.ids, tokens):
            return None
        # Only the window before the last cell is written: cells that an interrupted decode left
        # behind the ids would move it, and nobody could go on from the ids' own end.
        self._shorten(slot, len(slot.ids))
        if self._context.state_size(slot.seq) > limit:
            return None
        return list(slot.ids), self._context.state(slot.seq)

    def put(self, ids: Sequence[int], state: bytearray | memoryview) -> bool:
        """Fill a free slot with the cells of `ids`; False when there is none or they do not fit."""
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            return False
        slot = min(free, key=lambda s: (len(s.ids) > 0, s.last_used))
        self._shorten(slot, 0)
        if not self._context.restore(slot.seq, state):
            return False
        slot.ids.extend(ids)
        slot.restored = True
        slot.last_used = time.perf_counter()
        return True

    def hold(self, slots: Sequence[Slot | None]) -> None:
        """Let these slots be the busy ones."""
        for slot in self._slots:
            slot.busy = slot in slots

    def release(self, slot: Slot) -> None:
        """Give a slot back; what it holds stays until another prompt needs the room."""
        slot.busy = False
        slot.last_used = time.perf_counter()

    def forget_extra(self) -> None:
        """Remove cells that a decode left which was interrupted or failed."""
        for slot in self._slots:
            if slot.busy:
                self._context.remove(slot.seq, len(slot.ids))
                if not self._reaches_back(slot, len(slot.ids)):
                    self._shorten(slot, 0)

    def forget_idle(self) -> bool:
        """Make room by dropping what is held for nobody; False if there was nothing."""
        idle = [slot for slot in self._slots if not slot.busy and slot.ids]
        for slot in idle:
            self._shorten(slot, 0)
        return bool(idle)

    def _keepable(self, slot: Slot, tokens: Sequence[int]) -> int:
        """How many of the slot's ids serve the prompt as they are."""
        # The last token is always decoded anew, as its logits are needed.
        keep = min(_common(slot.ids, tokens), len(tokens) - 1)
        return keep if self._reaches_back(slot, keep) else 0

    def _reaches_back(self, slot: Slot, n: int) -> bool:
        """Whether the sequence can go on from its first `n` ids.

        The window's cells are overwritten as a sequence grows, and llama.cpp goes back to a
        position without complaint when the cells before it are gone: the logits are wrong then.
        """
        return 0 <= self._context.first_position(slot.seq) <= max(0, n - self._n_swa)

    def _share(self, lender: Slot, slot: Slot, n: int) -> None:
        """Let a slot begin with the first `n` cells of another: no cell is copied."""
        slot.reused = SHARED
        if slot is lender:
            self._shorten(slot, n)
            slot.reused = EARLIER
            return
        self._shorten(slot, 0)
        self._context.copy(lender.seq, slot.seq, n)
        slot.ids.extend(lender.ids[:n])

    def _shorten(self, slot: Slot, n: int) -> None:
        del slot.ids[n:]
        self._context.remove(slot.seq, n)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    n = min(len(a), len(b))
    if list(a[:n]) == list(b[:n]):  # a chat goes on: this is quicker
        return n
    return next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
