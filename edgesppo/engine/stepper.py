"""One step of the engine: decode what the scheduler chose, then sample what is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.engine.request import FAILED
from edgesppo.errors import Cancelled, ContextOverflow, EdgesppoError
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.engine.kv_cache import KVCache
    from edgesppo.engine.long_prompts import LongPrompts
    from edgesppo.engine.runner import Runner
    from edgesppo.engine.scheduler import Part, Scheduler
    from edgesppo.llama.batch import Batch
    from edgesppo.llama.context import Context
    from edgesppo.llama.mapped_file import MappedFile


class Stepper:
    """Takes the steps of one context. `file` is the model's, which must not change meanwhile."""

    def __init__(
        self,
        context: Context,
        runner: Runner,
        batch: Batch,
        cache: KVCache,
        schedule: Scheduler,
        long_prompts: LongPrompts,
        file: MappedFile,
    ) -> None:
        self._context, self._runner, self._batch = context, runner, batch
        self._cache, self._schedule, self._long, self._file = cache, schedule, long_prompts, file

    def recover(self) -> None:
        """Restore a consistent state after an interrupted step."""
        self._schedule.recover()
        self._cache.remove_surplus()
        self._long.recover()

    def step(self) -> bool:
        """Decode, and advance the requests; returns False if nothing was or it was cancelled."""
        n_long: Callable[[int, int], int] = self._long.n_long
        n = 0
        try:
            try:
                n = self._prefill_long() if self._long.is_used else 0
            except ContextOverflow:  # the batch finds out whom there is room for
                self._cache.remove_surplus()
                n_long = _no_long_part
            parts = self._decode(n, n_long)
        except Cancelled:
            return False
        if len(parts) > 1:  # Ctrl-C must not leave another's sampler a token ahead of its text
            run_interruptibly(lambda: self._advance_all(parts), lambda: None)
        else:
            self._advance_all(parts)
        return bool(n or parts)

    def _prefill_long(self) -> int:
        """Compute the long parts of prompts; returns the number of their tokens."""
        n = 0
        for request, end in self._schedule.long_parts(self._batch.capacity, self._long.n_long):
            self._file.check()
            slot = request.slot
            assert slot is not None, "only requests with a slot run"
            start = len(slot.ids)
            if not self._long.compute(request, end):
                break
            slot.ids.extend(request.tokens[start:end])
            request.record_progress(end, sampled=False)
            n += end - start
        return n

    def _decode(self, n_apart: int, n_long: Callable[[int, int], int]) -> list[Part]:
        """Decode a batch, after `n_apart` tokens that were computed apart; returns its parts."""
        while parts := self._schedule.fill(self._batch, n_apart, n_long):
            self._file.check()
            try:
                self._runner.run(self._batch)
                break
            except ContextOverflow:
                if not self._schedule.make_room():
                    raise
        return parts

    def _advance_all(self, parts: list[Part]) -> None:
        """Advance every request of the batch. A failure ends only the request it belongs to."""
        for part in parts:
            try:
                self._advance(part)
            except EdgesppoError as error:
                part.request.error = error
                self._schedule.finish(part.request, FAILED)

    def _advance(self, part: Part) -> None:
        """Sample a request's decoded part, and record what the KV cache now holds of it.

        The request's tokens grow before the slot's ids: tokens that an interrupt keeps out of the
        ids are decoded again.
        """
        request, end = part.request, part.end
        slot = request.slot
        if slot is None or request.finish_reason is not None:
            return
        drawn: list[int] = []
        reason = None
        if end == len(request.tokens):
            drawn, reason = self._runner.sample(request, part.entry)
        slot.ids.extend(request.tokens[len(slot.ids) : end + max(0, len(drawn) - 1)])
        request.record_progress(end, sampled=bool(drawn))
        if request.draft:
            self._context.remove(slot.seq, len(slot.ids))
        if drawn and request.drafter is not None:
            request.drafter.learn(request.draft, drawn)
        request.draft = []
        if reason is not None:
            self._schedule.finish(request, reason)


def _no_long_part(_start: int, _n: int) -> int:
    return 0
