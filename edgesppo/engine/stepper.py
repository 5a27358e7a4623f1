"""One step of the engine: decode what the scheduler chose, then sample what is complete."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo.engine import config
from edgesppo.engine.kv_cache import KVCache
from edgesppo.engine.long_prompts import LongPrompts
from edgesppo.engine.prefill_slice import LEAST_OF_LONG, TELLING, PrefillSlice
from edgesppo.engine.request import FAILED
from edgesppo.engine.runner import Runner
from edgesppo.engine.scheduler import Scheduler
from edgesppo.errors import Cancelled, ContextOverflow, OutOfMemory
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.system import memory_guard, notices
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from edgesppo.engine.pace import Pace
    from edgesppo.engine.part import Part
    from edgesppo.engine.request import Request
    from edgesppo.engine.scheduler import NLong
    from edgesppo.llama.model import Model
    from edgesppo.planning.run_config import ContextParams


class Stepper:
    """Takes the steps of a model: in one context, or with a second one for long prompts.

    `params` are the first one's, `plain_from` is the least number of tokens for the second; None if
    there is none. Raises OutOfMemory.
    """

    def __init__(
        self, model: Model, params: ContextParams, plain_from: int | None, pace: Pace | None
    ) -> None:
        # With a second context, one sequence more is there for what goes from one to the other.
        own = params if plain_from is None else replace(params, n_seqs=params.n_seqs + 1)
        config.require_memory(model.summary, own, model.n_gpu_layers)
        self._file = model.file
        self.context = Context(model.weights, own)
        self.batch = Batch(self.context.n_batch)
        self.runner = Runner(self.context, config.threads_started(params), pace)
        self.cache = KVCache(self.context, params.n_seqs, model.weights.n_swa)
        self.long_prompts = LongPrompts(model, self.context, plain_from, pace)
        whole = self.batch.capacity
        least_of_long = max(LEAST_OF_LONG, self.long_prompts.most_needed)
        self.slice = PrefillSlice(whole, whole if params.n_seqs == 1 else least_of_long)
        self.schedule = Scheduler(self.cache, self.slice)
        self.noticing: list[LongPrompts | Pace] = [
            self.long_prompts,
            *([pace] if pace is not None else []),
        ]

    def close(self) -> None:
        """Free the contexts."""
        self.long_prompts.close()
        self.context.close()

    def tell(self) -> None:
        """Give out the notices about speed, if there are any. Call this without any lock."""
        for source in self.noticing:
            notice = source.notice  # another thread may be giving it out
            if notice is not None:
                source.notice = None
                notices.notify(notice)

    def recover(self) -> None:
        """Restore a consistent state after an interrupted step."""
        self.schedule.recover()
        self.cache.remove_surplus()
        self.long_prompts.recover()

    def step(self) -> bool:
        """Decode, and advance the requests; returns False if nothing was or it was cancelled."""
        n_long: NLong = self.long_prompts.n_long
        apart: dict[Request, int] = {}
        started = time.perf_counter()
        try:
            try:
                if self.long_prompts.is_used:
                    self._prefill_long(apart)
            except ContextOverflow:  # the batch finds out whom there is room for
                self.cache.remove_surplus()
                n_long = _no_long_part
            parts = self._decode(apart, n_long)
        except Cancelled:
            return False
        if apart or self.batch.n_tokens >= TELLING:
            n_tokens = self.batch.n_tokens + sum(apart.values())
            self.slice.note(n_tokens, time.perf_counter() - started)
        if len(parts) > 1:  # Ctrl-C must not leave another's sampler a token ahead of its text
            with shielded():
                for part in parts:
                    self._advance(part)
        elif parts:
            self._advance(parts[0])
        return bool(apart or parts)

    def _prefill_long(self, computed: dict[Request, int]) -> None:
        """Compute the long parts of prompts, and note the number of tokens of each.

        Raises ContextOverflow where there is no room even without the idle sequences.
        """
        for request, end in self.schedule.long_parts(self.long_prompts.n_long):
            self._file.check()
            slot = request.slot
            assert slot is not None, "only requests with a slot run"
            if not self._compute_long(request, end):
                self.cache.remove_surplus()
                return
            start = len(slot.ids)  # only now: making room may have cost the slot its own cells
            slot.ids.extend(request.tokens[start:end])
            request.record_progress(end, sampled=False)
            computed[request] = end - start

    def _compute_long(self, request: Request, end: int) -> bool:
        """Compute a long part; what idle sequences hold makes room for its cells."""
        while True:
            try:
                return self.long_prompts.compute(request, end)
            except ContextOverflow:  # the second context still has them: only the copy is repeated
                self.cache.remove_surplus()
                if not self.cache.evict_idle():
                    raise

    def _decode(self, apart: dict[Request, int], n_long: NLong) -> list[Part]:
        """Decode a batch, after tokens that were computed `apart`; returns its parts."""
        while parts := self.schedule.fill(self.batch, apart, n_long):
            self._file.check()
            try:
                self.runner.run(self.batch)
                break
            except ContextOverflow:
                if not self.schedule.make_room():
                    raise
        return parts

    def _advance(self, part: Part) -> None:
        """Sample a request's decoded part, and record what the KV cache now holds of it.

        The request's tokens grow before the slot's ids: tokens that an interrupt keeps out of the
        ids are decoded again. A failure ends only the request that it belongs to.
        """
        request, end = part.request, part.end
        slot = request.slot
        if slot is None or request.finish_reason is not None:
            return
        drawn: list[int] = []
        reason = None
        try:
            if end == len(request.tokens):
                drawn, reason = self.runner.sample(request, part.entry)
            slot.ids.extend(request.tokens[len(slot.ids) : end + max(0, len(drawn) - 1)])
            request.record_progress(end, sampled=bool(drawn))
            if request.draft:
                self.context.remove(slot.seq, len(slot.ids))
            if drawn and request.drafter is not None:
                request.drafter.learn(request.draft, drawn)
        except MemoryError as error:
            request.error, reason = OutOfMemory(memory_guard.shortage(error)), FAILED
        except Exception as error:
            request.error, reason = error, FAILED
        request.draft = []
        if reason is not None:
            self.schedule.finish(request, reason)


def _no_long_part(_request: Request, _n: int, _beside: bool) -> int:
    return 0
