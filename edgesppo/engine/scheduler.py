"""Owns who is computed next: which requests run, which wait, and what of each goes into a batch.

Decodes and samples nothing; knows nothing of llama.cpp.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.planning.run_config import MAX_DRAFT

if TYPE_CHECKING:
    from edgesppo.engine.kv_cache import KVCache
    from edgesppo.engine.request import Request
    from edgesppo.llama.batch import Batch

# Prompt tokens in one step while answers are running: what each of them waits for at most.
SLICE = 64


@dataclass(frozen=True)
class Part:
    """A request's part of a batch: how far its tokens go, and the batch's entry of the last.

    Guesses of what comes behind them are the request's `draft`, and their last has that entry.
    """

    request: Request
    end: int
    entry: int


class Scheduler:
    """The requests of one engine: first come, first served, as the cache has room for them."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._waiting: collections.deque[Request] = collections.deque()
        self._running: list[Request] = []
        self._crowded = False  # whether an answer was put back for want of room

    def requests(self) -> list[Request]:
        """All that are not over."""
        return [*self._running, *self._waiting]

    def add(self, request: Request) -> None:
        """Let a request wait for its turn."""
        self._waiting.append(request)

    def tidy(self) -> None:
        """Make whole what an interrupt may have left half done, and end what is over."""
        self._running = [request for request in self._running if request.finish_reason is None]
        for request in [*self._waiting]:
            if request.finish_reason is not None or request in self._running:
                self._waiting.remove(request)
        self.drop_unwanted()
        for request in [*self._running]:
            if request.is_full:
                self.finish(request, "length")
        self.hold()

    def drop_unwanted(self) -> None:
        """End what was cancelled, and what nobody asks for any more."""
        for request in [*self._running, *self._waiting]:
            if request.is_unwanted:
                self.finish(request, "cancelled")

    def hold(self) -> None:
        """Let the slots of what runs be the busy ones."""
        self._cache.hold([request.slot for request in self._running])

    def admit(self) -> None:
        """Give waiting requests free slots of the cache."""
        while self._waiting and not (self._crowded and self._running):
            request = self._waiting[0]
            slot = self._cache.take(request.tokens)
            if slot is None:
                return
            request.admit(slot)
            self._running.append(request)
            self._waiting.popleft()

    def fill(self, batch: Batch) -> list[Part]:
        """Fill the batch with what the running requests have to feed."""
        batch.clear()
        answering: list[Request] = []
        prefilling: list[Request] = []
        for request in self._running:
            (answering if request.is_answering else prefilling).append(request)
        parts: list[Part] = []
        # Running answers first, so that a long prompt never makes them wait.
        for request in answering:
            parts.append(_add_answer(batch, request, len(answering)))
        room = SLICE if answering else batch.capacity
        for request in prefilling:
            room = min(room, batch.capacity - len(batch))
            if room > 0:
                before = len(batch)
                parts.append(_add(batch, request, room))
                room -= len(batch) - before
        return parts

    def make_room(self) -> bool:
        """Free cells of the cache for what runs; False where there is nothing to be freed."""
        return self._cache.forget_idle() or self._put_back()

    def _put_back(self) -> bool:
        """Let the youngest answer wait until another is over; False if it is the only one.

        What it has generated stays, and is prefilled again.
        """
        if len(self._running) < 2:
            return False
        request = self._running[-1]
        self._waiting.appendleft(request)
        self._running.remove(request)
        request.slot = None
        self._crowded = True
        self.hold()
        self._cache.forget_idle()
        return True

    def finish(self, request: Request, reason: str) -> None:
        """End a request; what its slot holds stays for the next."""
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


def _add_answer(batch: Batch, request: Request, n_answering: int) -> Part:
    """The latest token, and guesses of those behind it."""
    slot, n = request.slot, len(request.tokens)
    assert slot is not None, "only requests with a slot run"
    request.draft = []
    if request.drafter is not None:
        rows = min(MAX_DRAFT + 1, batch.capacity) - len(batch)
        most = min(rows - n_answering, request.limit - n - 1)
        if most > 0:
            request.draft = request.drafter.propose(most, n_answering - 1)
    tokens = [request.tokens[-1], *request.draft]
    return Part(request, n, batch.add(slot.seq, n - 1, tokens, logits=len(tokens)))


def _add(batch: Batch, request: Request, room: int) -> Part:
    """As much of the prompt as there is room for."""
    slot = request.slot
    assert slot is not None, "only requests with a slot run"
    start = len(slot.ids)
    end = min(len(request.tokens), start + room)
    whole = end == len(request.tokens)
    request.draft = []
    return Part(request, end, batch.add(slot.seq, start, request.tokens[start:end], logits=whole))
