"""The scheduler: which requests run, which wait, and what of each goes into the next batch."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, TypeAlias

from edgesppo.engine.part import add_answer, add_prompt
from edgesppo.engine.shared_prompts import SharedPrompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgesppo.engine.kv_cache import KVCache
    from edgesppo.engine.part import Part
    from edgesppo.engine.prefill_slice import PrefillSlice
    from edgesppo.engine.request import Request
    from edgesppo.llama.batch import Batch

# One part in so many of the prompt tokens in a step is for the prompt that came first.
_OLDEST_SHARE = 4
# Cells for each running answer to grow by, where there was no room for all of them.
_GROWTH = 64


# A request, and the number of its tokens that are computed afterwards.
LongPart: TypeAlias = "tuple[Request, int]"
# How many of a prompt's `n` tokens from `start` on a second context computes, `beside` answers.
NLong: TypeAlias = "Callable[[Request, int, bool], int]"


class Scheduler:
    """The requests of one engine: first come, first served, while the cache has free slots.

    Between salts it is fair: the one with the fewest running requests is next, and where there is
    no room for it, a request of another salt that has had its turn goes back into the queue. Its
    next turn is twice as long, since its prompt is prefilled again.

    Of prompts that begin alike, the first computes what they share, and the others begin after it.
    Meanwhile those behind them may start, but leave a free slot for them.

    A `slice` says how many prompt tokens go into a step, beside running answers above all.
    """

    def __init__(self, cache: KVCache, slice: PrefillSlice) -> None:
        self._cache = cache
        self._slice = slice
        self._waiting: collections.deque[Request] = collections.deque()
        self._running: list[Request] = []
        self._crowded = False  # whether a running request was preempted for lack of cells
        self._shared = SharedPrompts(cache)

    def requests(self) -> list[Request]:
        """All requests that are not finished."""
        return [*self._running, *self._waiting]

    @property
    def n_running(self) -> int:
        """How many requests have a slot."""
        return len(self._running)

    def add(self, request: Request) -> None:
        """Append a request to the queue."""
        self._waiting.append(request)

    def recover(self) -> None:
        """Restore a consistent state after an interrupted step, and finish what is complete."""
        self._running = [request for request in self._running if request.finish_reason is None]
        for request in [*self._waiting]:
            if request.finish_reason is not None or request in self._running:
                self._waiting.remove(request)
            else:
                request.slot = None  # it was being started, or put back
        self.drop_unwanted()
        for request in [*self._running]:
            if request.is_full:
                self.finish(request, "length")
        self.sync_slots()

    def drop_unwanted(self) -> None:
        """Finish the requests that were cancelled or whose owner no longer exists."""
        for request in [*self._running, *self._waiting]:
            if request.is_unwanted:
                self.finish(request, "cancelled")

    def sync_slots(self) -> None:
        """Mark exactly the slots of the running requests as busy."""
        self._cache.set_busy([request.slot for request in self._running])

    def admit(self) -> None:
        """Start waiting requests while the cache has room, made by those who had their turn."""
        if self._shared.ends:
            self._shared.ends.clear()
        if not self._waiting:
            return
        now = time.perf_counter()
        if self._cache.n_free or any(request.had_turn(now) for request in self._running):
            self._admit_waiting()
            self._shared.limit_ends(0 if self._crowded else self._cache.n_free)

    def _admit_waiting(self) -> None:
        held_back: set[Request] = set()
        while True:
            n_running = collections.Counter(request.salt for request in self._running)
            order = sorted(self._firsts(held_back), key=lambda request: n_running[request.salt])
            if any(map(self._start, order)):
                continue
            if not order or not self._make_way(order[0], n_running):
                return

    def _firsts(self, held_back: set[Request]) -> list[Request]:
        """The first request of each salt that need not wait for another one's prompt.

        Those that do are `held_back`, and are not asked again. Of their salt, no other one takes
        the last free slot, or comes before as many of them as there are slots.
        """
        n_free = self._cache.n_free
        firsts: dict[str, Request | None] = {}
        n_held: collections.Counter[str] = collections.Counter()
        for request in self._waiting:
            salt = request.salt
            if salt in firsts:
                continue
            if request in held_back or self._shared.holds_back(request, self._running):
                held_back.add(request)
                n_held[salt] += 1
                if n_free < 2 or n_held[salt] >= self._cache.n_seqs:
                    firsts[salt] = None
            else:
                firsts[salt] = request
        return [request for request in firsts.values() if request is not None]

    def _start(self, request: Request) -> bool:
        """Start a waiting request; False if there is no room for it."""
        if not self._fits(request, self._running):
            return False
        slot = self._cache.take(request.tokens, request.salt, request.n_prompt)
        if slot is None:
            return False
        request.admit(slot)
        self._running.append(request)
        self._waiting.remove(request)
        return True

    def _fits(self, request: Request, beside: Sequence[Request]) -> bool:
        """Whether there are cells for a request; they are counted only where there were too few."""
        if not self._crowded or not beside:
            return True
        n_tokens = sum(len(one.tokens) + _GROWTH for one in [request, *beside])
        return n_tokens <= self._cache.n_ctx

    def _make_way(self, request: Request, n_running: Mapping[str, int]) -> bool:
        """Start a request in place of those of salts that have more; False if they cannot go yet.

        A salt with none running takes turns with the others; else it only gets its equal share.
        They go only if that is enough: one that went in vain would start again, for a longer turn.
        """
        n = n_running[request.salt]
        now = time.perf_counter()
        had_turn: list[Request] = []
        others: list[Request] = []
        for one in self._running:
            goes = n_running[one.salt] > n + (n > 0) and one.had_turn(now)
            (had_turn if goes else others).append(one)
        if not self._fits(request, others):
            return False
        weight = self._n_tokens() if self._crowded else n_running
        had_turn.sort(key=lambda one: weight[one.salt])
        while had_turn:
            one = had_turn.pop()
            self._waiting.append(one)
            self._put_back(one)
            if self._start(request):
                return True
        return False

    def _n_tokens(self) -> Mapping[str, int]:
        """How many tokens the running requests of each salt have."""
        found: collections.Counter[str] = collections.Counter()
        for request in self._running:
            found[request.salt] += len(request.tokens)
        return found

    def long_parts(self, n_long: NLong) -> list[LongPart]:
        """The parts of prompts that are long enough to be computed apart in the next step.

        `n_long` says which are; the last token of a prompt is never among them.
        """
        prefilling = [request for request in self._running if not request.is_answering]
        beside = len(prefilling) < len(self._running)
        found = []
        room = self._slice.n_tokens(beside=beside)
        for request, share in self._shares(prefilling, room, {}):
            if n := _n_long(request, share, n_long, beside=beside):
                found.append((request, request.n_done + n))
        return found

    def fill(self, batch: Batch, apart: Mapping[Request, int], n_long: NLong) -> list[Part]:
        """Fill the batch with the tokens that the running requests have to decode next.

        So many prompt tokens of the requests in `apart` were computed apart in this step, and what
        is long enough for that is left to the next one.
        """
        batch.clear()
        answering: list[Request] = []
        prefilling: list[Request] = []
        for request in self._running:
            (answering if request.is_answering else prefilling).append(request)
        parts: list[Part] = []
        # Running answers first, so that a long prompt never makes them wait.
        for request in answering:
            parts.append(add_answer(batch, request, len(answering)))
        if prefilling:
            beside = bool(answering)
            most = self._slice.n_tokens(beside=beside)
            room = min(most - sum(apart.values()), batch.capacity - len(batch))
            for request, share in self._shares(prefilling, room, apart):
                if not _n_long(request, share, n_long, beside=beside):
                    parts.append(add_prompt(batch, request, share))
        return parts

    def _shares(
        self, prefilling: list[Request], room: int, apart: Mapping[Request, int]
    ) -> Iterator[tuple[Request, int]]:
        """How many prompt tokens of each request go into a batch that has `room` for so many.

        The prompt with the fewest to compute comes first: it need not wait for a long one. So that
        the oldest prompt is never left behind for good, a part of the room is its own, unless it
        is among those of which so many tokens were computed `apart` in this step already. What is
        not done with this step takes no more in all than a newcomer can wait for.
        """
        oldest = prefilling[0] if prefilling else None
        reserved = 0 if oldest in apart else room // _OLDEST_SHARE
        for request in sorted(prefilling, key=self._shared.n_left):
            left = self._shared.n_left(request)
            share = min(left, room if request is oldest else room - reserved)
            if share < left:
                share = min(share, self._slice.of_long - apart.get(request, 0))
            if request is oldest:
                reserved = 0
            if share > 0:
                room -= share
                yield request, share

    def make_room(self) -> bool:
        """Free cells of the cache for the running requests; False if none can be freed."""
        return self._cache.evict_idle() or self._preempt()

    def _preempt(self) -> bool:
        """Put a request back into the queue; False if no other is running.

        It is the newest of the salt with the most tokens if that has had its turn, else the newest
        of all. Its generated tokens stay, and are prefilled again.
        """
        if len(self._running) < 2:
            return False
        n_tokens = self._n_tokens()
        request = max(reversed(self._running), key=lambda request: n_tokens[request.salt])
        if not request.had_turn(time.perf_counter()):
            request = self._running[-1]
        self._waiting.appendleft(request)
        self._put_back(request)
        self._crowded = True
        self._cache.evict_idle()
        return True

    def _put_back(self, request: Request) -> None:
        """Take a request, which is in the queue again, from those that run."""
        self._running.remove(request)
        request.slot = None
        request.turn_s *= 2
        self.sync_slots()

    def finish(self, request: Request, reason: str) -> None:
        """End a request. The cells of its slot stay, for the next prompt."""
        if request.finish_reason is not None:
            return
        request.finish_reason = reason
        self._crowded = False
        if request in self._running:
            self._running.remove(request)
        if request in self._waiting:
            self._waiting.remove(request)
        if request.slot is not None:
            self._cache.release(request.slot)
        request.chain.close()


def _n_long(request: Request, share: int, n_long: NLong, *, beside: bool) -> int:
    """How many of the next `share` tokens of a prompt are computed apart."""
    return n_long(request, min(share, request.n_left - 1), beside)
