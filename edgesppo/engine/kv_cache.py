"""The KV cache: its slots, the token ids that each holds, and what a new prompt can reuse.

A slot's `ids` grow only after a decode succeeded, so an interrupt at any point leaves at most
surplus cells behind; `remove_surplus` removes those.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgesppo.llama.context import Context


# What a prompt reuses of the cache: nothing, an earlier prompt and its answer, cells of another
# sequence, or cells restored from a file.
NOTHING, EARLIER, SHARED, RESTORED = "nothing", "earlier", "shared", "restored"


@dataclass(eq=False)
class Slot:
    """One sequence of the cache: its number, and the ids that it holds from position 0 on.

    `busy` says whether a request is running in it; `reused` what its latest request reused, and
    `n_prompt` how many ids its prompt had. Only requests with the slot's `salt` reuse its cells.
    The cells of the first `n_shared` ids are those of the `lender`.
    """

    seq: int
    ids: list[int] = field(default_factory=list)
    busy: bool = False
    last_used: float = 0.0
    reused: str = NOTHING
    restored: bool = False
    salt: str = ""
    n_prompt: int = 0
    lender: Slot | None = None
    n_shared: int = 0


class KVCache:
    """The `n_seqs` slots of one context. `n_swa` is the sliding window's length in tokens."""

    def __init__(self, context: Context, n_seqs: int, n_swa: int) -> None:
        self.n_ctx = context.n_ctx
        self.n_seqs = n_seqs
        self._context = context
        self._n_swa = n_swa
        self._slots = [Slot(seq) for seq in range(n_seqs)]

    def take(
        self, tokens: Sequence[int], salt: str = "", n_prompt: int | None = None
    ) -> Slot | None:
        """Take a free slot for a prompt, with the prefix that can be reused; None if all are busy.

        It is the free slot that holds an earlier turn of the same conversation, else an empty one,
        or that used least recently. If more can be reused of another slot, its cells are shared: a
        system text is held once for all chats. What was computed under another `salt` is never
        reused: how soon an answer comes would tell what others asked. The first `n_prompt` of the
        tokens, by default all, are the prompt; what follows was generated before.
        """
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            return None
        oldest = _oldest(free)
        going_on = [s for s in free if s.salt == salt and _goes_on(s, tokens)]
        slot = max(going_on, key=lambda s: common_prefix(s.ids, tokens), default=oldest)
        lenders = [other for other in self._slots if other.salt == salt]
        keep = self._reusable(slot, tokens) if slot.salt == salt else 0
        lender = max(lenders, key=lambda s: self._reusable(s, tokens), default=slot)
        shared = self._reusable(lender, tokens) if lenders else 0
        if shared > keep:
            slot = oldest
            self._share(lender, slot, shared)
        else:
            self._truncate(slot, keep)
            slot.reused = (RESTORED if slot.restored else EARLIER) if keep else NOTHING
        slot.restored = False
        slot.salt = salt
        slot.n_prompt = len(tokens) if n_prompt is None else n_prompt
        slot.busy = True
        return slot

    def count_cached(self, tokens: Sequence[int], salt: str | None = None) -> int:
        """The number of a prompt's tokens that need no prefill, of one salt or of any."""
        slots = [slot for slot in self._slots if salt in (None, slot.salt)]
        return max((self._reusable(slot, tokens) for slot in slots), default=0)

    @property
    def n_free(self) -> int:
        """How many slots can be taken."""
        return sum(not slot.busy for slot in self._slots)

    def n_held(self) -> int:
        """The number of tokens in all slots; those that a slot has of its lender count once."""
        return sum(len(slot.ids) - slot.n_shared for slot in self._slots)

    def state(self, tokens: Sequence[int], limit: int) -> tuple[list[int], memoryview] | None:
        """The ids and cells of the slot that shares the most with `tokens`, for `put`.

        None if no slot shares anything, or its cells take more than `limit` bytes.
        """
        slot = max(self._slots, key=lambda s: common_prefix(s.ids, tokens))
        return self._state(slot, limit) if common_prefix(slot.ids, tokens) else None

    def states(self, least: int, limit: int) -> Iterator[tuple[str, list[int], memoryview]]:
        """The salt, ids and cells of the slots with at least `least` ids, the latest first."""
        for slot in sorted(self._slots, key=lambda s: -s.last_used):
            if len(slot.ids) >= least and not slot.busy:
                found = self._state(slot, limit)
                if found is not None:
                    yield (slot.salt, *found)

    def _state(self, slot: Slot, limit: int) -> tuple[list[int], memoryview] | None:
        """A slot's ids and cells; None if these take more than `limit` bytes."""
        # llama.cpp writes only the window before the last cell. Surplus cells of an interrupted
        # decode would move it, and the sequence could not be continued after its ids.
        self._truncate(slot, len(slot.ids))
        if self._context.state_size(slot.seq) > limit:
            return None
        return list(slot.ids), self._context.state(slot.seq)

    def put(self, ids: Sequence[int], state: bytearray | memoryview, salt: str = "") -> bool:
        """Fill a free slot with the cells of `ids`; False if none is free or they do not fit.

        Those used least recently make room.
        """
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            return False
        slot = _oldest(free)
        busy = sum(len(one.ids) for one in self._slots if one.busy)
        if busy + len(ids) > self._context.n_ctx:
            return False
        self._truncate(slot, 0)
        while not self._context.restore(slot.seq, state):
            if not self.evict_idle():
                return False
        slot.ids.extend(ids)
        slot.restored, slot.salt, slot.n_prompt = True, salt, len(ids)
        slot.last_used = time.perf_counter()
        return True

    def shorten(self, tokens: Sequence[int], n: int, salt: str = "") -> None:
        """Keep only the first `n` cells of a free slot that holds the beginning of `tokens`.

        Left as it is where it could not be continued from there.
        """
        for slot in self._slots:
            if slot.busy or slot.salt != salt or len(slot.ids) <= n:
                continue
            if slot.ids == list(tokens[: len(slot.ids)]) and self._reaches_back(slot, n):
                self._truncate(slot, n)

    def set_busy(self, slots: Sequence[Slot | None]) -> None:
        """Mark these slots as busy, and all others as free."""
        for slot in self._slots:
            slot.busy = slot in slots

    def release(self, slot: Slot) -> None:
        """Free a slot; its cells stay until another prompt needs the room."""
        slot.busy = False
        slot.last_used = time.perf_counter()

    def remove_surplus(self) -> None:
        """Remove the cells that an interrupted or failed decode left behind."""
        for slot in self._slots:
            self._context.remove(slot.seq, len(slot.ids))
            if slot.busy and not self._reaches_back(slot, len(slot.ids)):
                self._truncate(slot, 0)

    def evict_idle(self) -> bool:
        """Make room by emptying the free slot used least recently; False if all were empty."""
        idle = [slot for slot in self._slots if not slot.busy and slot.ids]
        if idle:
            self._truncate(_oldest(idle), 0)
        return bool(idle)

    def _reusable(self, slot: Slot, tokens: Sequence[int]) -> int:
        """The number of the slot's ids that the prompt can reuse."""
        # The last token is always decoded again, because its logits are needed.
        keep = min(common_prefix(slot.ids, tokens), len(tokens) - 1)
        return keep if self._reaches_back(slot, keep) else 0

    def _reaches_back(self, slot: Slot, n: int) -> bool:
        """Whether the sequence can be continued after its first `n` ids.

        The sliding window's cells are overwritten as a sequence grows. llama.cpp goes back to a
        position without an error even if the cells before it are gone, and gives wrong logits.
        The window of a token has the token itself in it, so that its first is `n_swa - 1` before.
        """
        return 0 <= self._context.first_position(slot.seq) <= max(0, n + 1 - self._n_swa)

    def _share(self, lender: Slot, slot: Slot, n: int) -> None:
        """Let `slot` begin with the first `n` cells of `lender`, without copying them."""
        is_own = slot is lender
        slot.reused = RESTORED if lender.restored else EARLIER if is_own else SHARED
        self._truncate(slot, n if is_own else 0)
        if not is_own:
            self._context.copy(lender.seq, slot.seq, n)
            slot.ids.extend(lender.ids[:n])
            slot.lender, slot.n_shared = lender, n

    def _truncate(self, slot: Slot, n: int) -> None:
        """Keep only the first `n` ids and cells."""
        del slot.ids[n:]
        for other in self._slots:
            if slot in (other, other.lender):
                other.n_shared = min(other.n_shared, n)
        self._context.remove(slot.seq, n)


def _oldest(slots: Sequence[Slot]) -> Slot:
    """An empty slot, else that used least recently."""
    return min(slots, key=lambda slot: (len(slot.ids) > 0, slot.last_used))


def _goes_on(slot: Slot, tokens: Sequence[int]) -> bool:
    """Whether a prompt is of the slot's conversation, and not only begins as others do.

    Then it has all of the last prompt. Its answer may be another one, or tokenised otherwise.
    """
    return bool(slot.ids) and common_prefix(slot.ids, tokens) >= min(len(slot.ids), slot.n_prompt)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    same, most = 0, min(len(a), len(b))
    while same < most:  # halves are compared as a whole, which is much faster than one by one
        middle = (same + most + 1) // 2
        if list(a[same:middle]) == list(b[same:middle]):
            same = middle
        else:
            most = middle - 1
    return same
