"""Owns one llama context and the many sequences in it; purely token ids, no text, no chats.

`step()` takes what every running request still has to feed (one token, or a slice of a prompt),
decodes it all as one batch and samples each request that reached its end. Whoever waits for a
token pumps `step()`: there is no thread of the engine's own. A request's `tokens` are the truth;
a slot's `ids` say which of them the KV cache holds, and change only after a decode succeeded. So
an interrupt at any point leaves at most extra cells behind, and those are removed.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

from edgesppo.engine import config
from edgesppo.engine.draft_model import DraftModel
from edgesppo.engine.kv_cache import KVCache
from edgesppo.engine.ngram_draft import Drafter
from edgesppo.engine.request import CLOSED, FAILED, Event, Request, chain_for
from edgesppo.engine.runner import Runner
from edgesppo.engine.scheduler import Part, Scheduler
from edgesppo.errors import Cancelled, Closed, ContextOverflow, EdgesppoError, UsageError
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.planning.run_config import DEFAULT_BATCH, USUAL_COSTS
from edgesppo.system import validate
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from edgesppo.llama.model import Model
    from edgesppo.sampling.params import SamplingParams


class Engine:
    """Many sequences over one model. Close it before the model.

    `n_ctx` is in tokens, by default what the model was trained for; all `n_seqs` sequences share
    it. Prompts are computed `n_ubatch` tokens at a time, by `n_threads_batch` threads; answers by
    `n_threads`, by default one a core. `cache_type` is the type of the KV cache: "f16", "f32" or
    "q8_0". What probably comes next is guessed from the text so far, and computed with the next
    token where that pays: `draft_costs` says what a batch of ROWS rows costs against one,
    None does without. `draft_model` guesses, too; it is closed with the engine. Guesses change no
    answer but by the rounding of larger batches, which may turn near ties.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int | None = None,
        n_seqs: int = 1,
        n_batch: int = DEFAULT_BATCH,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        n_ubatch: int = DEFAULT_BATCH,
        cache_type: str = "f16",
        flash_attention: str = "auto",
        draft_costs: Sequence[float] | None = USUAL_COSTS,
        draft_model: DraftModel | None = None,
    ) -> None:
        self.model = model
        if draft_model is not None and not isinstance(draft_model, DraftModel):
            raise UsageError(f"draft_model is {draft_model!r}, expected a DraftModel")
        params = config.context_params(
            model.n_ctx_train,
            n_ctx=n_ctx,
            n_seqs=n_seqs,
            n_batch=n_batch,
            n_ubatch=n_ubatch,
            n_threads=n_threads,
            n_threads_batch=n_threads_batch,
            cache_type=cache_type,
            flash_attention=flash_attention,
            draft_costs=draft_costs,
        )
        config.ask_for_memory(model.summary, params)
        self._context: Context | None = Context(model.weights, params)
        self.settings = f"{cache_type} {flash_attention} {model.n_gpu_layers}"
        self.n_ctx = params.n_ctx
        self.n_threads = params.n_threads
        self.n_threads_batch = params.n_threads_batch
        self.flash_attention = flash_attention
        may_guess = config.may_guess(params.n_ubatch, draft_costs)
        self._draft_costs = draft_costs if may_guess else None
        self._draft_model = draft_model
        self._batch = Batch(self._context.n_batch)
        self._runner = Runner(self._context, config.threads(params))
        self._cache = KVCache(self._context, n_seqs, model.weights.n_swa)
        self._schedule = Scheduler(self._cache)
        self._unsettled = False  # whether a step was left before its end
        self._closing = False
        self._lock = threading.RLock()

    def close(self) -> None:
        """End every request, its stream with Closed, and free the context; may be repeated."""
        self._closing = True  # or threads that pump could keep the lock among themselves
        if self._context is not None:
            self._stop()
        with self._lock:
            context, self._context = self._context, None
            for request in self._schedule.requests():
                self._schedule.finish(request, CLOSED)
            if context is not None:
                context.close()
                if self._draft_model is not None:
                    self._draft_model.close()

    def submit(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        owner: object = None,
        grammar: str | None = None,
    ) -> Request:
        """Queue a prompt; `grammar`, of `schema.grammar`, is what its answer is bound to.

        Raises ContextOverflow when the prompt leaves no room for an answer. Where an `owner` is
        given, the request ends with it: an interrupt can hit the very code that would have
        cancelled it.
        """
        tokens = list(prompt)
        if not tokens:
            raise UsageError("the prompt has no tokens")
        self._check(tokens)
        n = len(tokens)
        if n >= self.n_ctx:
            raise self.overflow(n)
        chain = chain_for(tokens, params, grammar, self.model, self.n_ctx)
        request = Request(
            tokens,
            n,
            params,
            chain,
            submitted_at=time.perf_counter(),
            limit=min(n + params.max_tokens, self.n_ctx),
            end_tokens=self.model.end_tokens.union(params.stop_tokens),
        )
        if owner is not None:
            request.owner = weakref.ref(owner)
        if self._draft_costs:
            request.drafter = Drafter(tokens, self._draft_costs, self._draft_model)
        with self._lock:
            self._open_context()
            self._schedule.add(request)
        return request

    def _check(self, tokens: list[int]) -> None:
        """Raises UsageError unless these are ids of the vocabulary."""
        last = self.model.n_vocab - 1
        if set(map(type, tokens)) != {int} or min(tokens) < 0 or max(tokens) > last:
            for token in tokens:
                validate.whole("a token of the prompt", token, 0, last)

    def overflow(self, n_tokens: int, *, at_least: bool = False) -> ContextOverflow:
        """The error for a prompt of so many tokens, to be raised."""
        trained = self.model.n_ctx_train
        return ContextOverflow.of_prompt(n_tokens, self.n_ctx, trained, at_least=at_least)

    def cancel(self, request: Request) -> None:
        """Stop a request, from any thread, also in the middle of its prefill."""
        if request.finish_reason is not None:
            return
        request.cancelled = True
        self._stop()
        with self._lock:
            self._unsettled = True  # should this be interrupted
            self._schedule.drop_unwanted()

    def _stop(self) -> None:
        """End the computation under way."""
        context = self._context
        if context is not None:
            context.abort.set()
        if self._draft_model is not None:
            self._draft_model.stop()

    def _go_on(self) -> Context:
        """Let computations run again. Who stops one says why before: that is looked at next."""
        if self._context is not None:
            self._context.abort.clear()
        if self._draft_model is not None:
            self._draft_model.go_on()
        return self._open_context()

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """The events of one request, pumping `step()` while there are none.

        An event without token and reason means that a slice of the prompt was prefilled. Leaving
        the iterator early cancels the request. Raises Closed when the engine was closed meanwhile.
        """
        given, prefilled = request.n_prompt, request.n_prefilled
        try:
            while True:
                reason = request.finish_reason  # looked at first: no token comes after it
                while given < len(request.tokens):
                    given += 1
                    yield Event(request.tokens[given - 1])
                if reason == CLOSED:
                    raise Closed("the model was closed while it was answering")
                if request.error is not None:
                    raise request.error
                if reason is not None:
                    yield Event(None, reason)
                    return
                if prefilled < request.n_prefilled < request.n_prompt:
                    prefilled = request.n_prefilled
                    yield Event(None)
                with self._lock:
                    if not request.has_more_than(given, prefilled):
                        self.step()
        finally:
            self.cancel(request)

    def held(self, tokens: Sequence[int]) -> int:
        """How many of a prompt's tokens are in the KV cache, so that they need no prefill."""
        with self._lock:
            self._open_context()
            return self._cache.held(tokens)

    def state(self, tokens: Sequence[int], limit: int) -> tuple[list[int], memoryview] | None:
        """The ids and the KV cells that are held for a prompt like `tokens`, if any are.

        None, too, where the cells take more than `limit` bytes.
        """
        with self._lock:
            self._open_context()
            return self._cache.state(tokens, limit)

    def restore(self, ids: Sequence[int], state: bytearray | memoryview) -> bool:
        """Put KV cells back, made by `state` under the same settings; False if they do not fit."""
        with self._lock:
            self._open_context()
            self._schedule.hold()
            return len(ids) < self.n_ctx and self._cache.put(ids, state)

    def step(self) -> None:
        """Decode one batch for all requests. Whoever waits for one sees it grow.

        Left by an exception at any point, Ctrl-C's included, it costs at most what it did.
        """
        with self._lock:
            context = self._go_on()
            unsettled, self._unsettled = self._unsettled, True
            if unsettled:
                self._schedule.tidy()
                self._cache.forget_extra()
            else:
                self._schedule.drop_unwanted()
            self._schedule.admit()
            parts = self._decoded()
            if len(parts) > 1:  # Ctrl-C must not leave another's sampler a token ahead of its text
                run_interruptibly(lambda: self._advance_all(context, parts), lambda: None)
            else:
                self._advance_all(context, parts)
            self._unsettled = not parts

    def _advance_all(self, context: Context, parts: list[Part]) -> None:
        """Take what the decode brought. One request's failure is its own."""
        for part in parts:
            try:
                self._advance(context, part)
            except EdgesppoError as error:
                part.request.error = error
                self._schedule.finish(part.request, FAILED)

    def _open_context(self) -> Context:
        if self._context is None or self._closing:
            raise Closed("the engine was closed; load the model again")
        return self._context

    def _decoded(self) -> list[Part]:
        """Decode a batch; returns its parts, none when there were none or it was stopped."""
        while parts := self._schedule.fill(self._batch):
            self.model.file.check()
            try:
                self._runner.run(self._batch)
                break
            except Cancelled:
                return []
            except ContextOverflow:
                if not self._schedule.make_room():
                    raise
        return parts

    def _advance(self, context: Context, part: Part) -> None:
        """Take what the decode brought for a request.

        Its tokens grow before the slot's ids do: what an interrupt leaves out of those is decoded
        again.
        """
        request, end = part.request, part.end
        slot = request.slot
        if slot is None or request.finish_reason is not None:
            return
        came: list[int] = []
        reason = None
        if end == len(request.tokens):
            came, reason = self._runner.sample(request, part.entry)
        slot.ids.extend(request.tokens[len(slot.ids) : end + max(0, len(came) - 1)])
        request.note(end, sampled=bool(came))
        if request.draft:
            context.remove(slot.seq, len(slot.ids))
        if came and request.drafter is not None:
            request.drafter.learn(request.draft, came)
        request.draft = []
        if reason is not None:
            self._schedule.finish(request, reason)
