"""Owns one llama context and the many sequences in it; purely token ids, no text, no chats.

`step()` takes what every running request still has to feed (one token, or a slice of a prompt),
decodes it all as one batch and samples each request that reached its end. Whoever waits for a
token pumps `step()`: there is no thread of the engine's own. A request's `tokens` are the truth;
a slot's `ids` say which of them the KV cache holds, and change only after a decode succeeded. So
an interrupt at any point leaves at most extra cells behind, and those are removed.
"""

from __future__ import annotations

import collections
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo import logprobs, machine
from edgesppo._llama import CACHE_TYPES, FLASH_ATTENTION, Context, ContextParams
from edgesppo.batch import Batch
from edgesppo.draft import MAX_DRAFT, USUAL_COSTS, Drafter
from edgesppo.errors import Cancelled, Closed, ContextOverflow, UsageError
from edgesppo.interrupt import run_interruptibly
from edgesppo.kv_cache import KVCache
from edgesppo.sampler import SamplingParams, build_chain

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from edgesppo._llama import SamplerChain
    from edgesppo.draft_model import DraftModel
    from edgesppo.kv_cache import Slot
    from edgesppo.logprobs import RowLogprobs
    from edgesppo.model import Model

# Batches up to this size are over quickly enough to be waited for when Ctrl-C arrives.
_SHORT_BATCH = 8
MIN_CTX = 16
DEFAULT_BATCH = 512
CLOSED = "closed"
# Prompt tokens in one step while answers are running: what each of them waits for at most.
_SLICE_BESIDE_ANSWERS = 64


@dataclass(frozen=True)
class Event:
    """What a step brought for one request: a token, or the reason why there are no more.

    `finish_reason` is "stop" (an end or stop token, which is not given out), "length" or
    "cancelled".
    """

    token: int | None
    finish_reason: str | None = None


@dataclass(eq=False)
class Request:
    """One answer being generated. Read-only for everyone but the engine."""

    tokens: list[int]
    n_prompt: int
    params: SamplingParams
    chain: SamplerChain
    submitted_at: float
    slot: Slot | None = None
    n_cached: int = 0
    finish_reason: str | None = None
    cancelled: bool = False
    first_token_at: float | None = None
    last_token_at: float | None = None
    logprobs: list[RowLogprobs] = field(default_factory=list)  # one a generated token, if asked for
    events: collections.deque[Event] = field(default_factory=collections.deque)
    drafter: Drafter | None = None
    draft: list[int] = field(default_factory=list)  # guesses in the batch under way

    @property
    def n_generated(self) -> int:
        """How many tokens have been generated."""
        return len(self.tokens) - self.n_prompt

    @property
    def n_prefilled(self) -> int:
        """How many of the prompt's tokens the KV cache holds."""
        return min(len(self.slot.ids), self.n_prompt) if self.slot else 0


class Engine:
    """Many sequences over one model. Close it before the model.

    `n_ctx` is in tokens, by default what the model was trained for; all `n_seqs` sequences share
    it. Prompts are computed `n_ubatch` tokens at a time, by `n_threads_batch` threads; answers by
    `n_threads`, by default one a core. `cache_type` is the type of the KV cache: "f16", "f32" or
    "q8_0". What probably comes next is guessed from the text so far, and computed with the next
    token where that pays: `draft_costs` says what a batch of draft.ROWS rows costs against one,
    None does without. `draft_model` guesses, too; it is closed with the engine. Guesses change no
    answer.
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
        n_ctx = model.n_ctx_train if n_ctx is None else n_ctx
        _check("n_ctx", n_ctx, MIN_CTX, model.n_ctx_train)
        _check("n_seqs", n_seqs, 1, 64)
        _check("n_batch", n_batch, n_seqs, 16_384)
        _check_choice("cache_type", cache_type, CACHE_TYPES)
        _check_choice("flash_attention", flash_attention, FLASH_ATTENTION)
        _check("n_ubatch", n_ubatch, 1, 16_384)
        threads = machine.cores() if n_threads is None else n_threads
        _check("n_threads", threads, 1, 1024)
        threads_batch = threads if n_threads_batch is None else n_threads_batch
        _check("n_threads_batch", threads_batch, 1, 1024)
        params = ContextParams(
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=min(n_batch, n_ubatch),
            n_seqs=n_seqs,
            n_outputs=n_seqs + (MAX_DRAFT if draft_costs else 0),
            n_threads=threads,
            n_threads_batch=threads_batch,
            cache_type=cache_type,
            flash_attention=flash_attention,
        )
        self._context: Context | None = Context(model.weights, params)
        self.settings = f"{cache_type} {flash_attention} {model.n_gpu_layers}"
        self.n_ctx = n_ctx
        self.n_threads = threads
        self.n_threads_batch = threads_batch
        self.flash_attention = flash_attention
        self._draft_costs = draft_costs
        self._draft_model = draft_model
        self._batch = Batch(n_batch)
        self._cache = KVCache(self._context, n_seqs, model.weights.n_swa)
        self._waiting: collections.deque[Request] = collections.deque()
        self._running: list[Request] = []
        self._lock = threading.RLock()

    def close(self) -> None:
        """End every request, its stream with Closed, and free the context; may be repeated."""
        if self._context is not None:
            self._stop()
        with self._lock:
            context, self._context = self._context, None
            for request in [*self._running, *self._waiting]:
                self._finish(request, CLOSED)
            if context is not None:
                context.close()
                if self._draft_model is not None:
                    self._draft_model.close()

    def submit(self, prompt: Sequence[int], params: SamplingParams) -> Request:
        """Queue a prompt. Raises ContextOverflow when it leaves no room for an answer."""
        tokens = list(prompt)
        if not tokens:
            raise UsageError("the prompt has no tokens")
        if len(tokens) >= self.n_ctx:
            raise ContextOverflow(
                f"the prompt has {len(tokens)} tokens, but the context holds {self.n_ctx} and "
                f"needs room for an answer: shorten it by {len(tokens) - self.n_ctx + 1} or more, "
                "or use a larger n_ctx",
                needed=len(tokens) + 1,
                available=self.n_ctx,
            )
        chain = build_chain(params, self.model.weights, self.n_ctx)
        chain.recall(tokens)
        request = Request(tokens, len(tokens), params, chain, submitted_at=time.perf_counter())
        if self._draft_costs:
            request.drafter = Drafter(tokens, self._draft_costs, self._draft_model)
        with self._lock:
            self._open_context()
            self._waiting.append(request)
        return request

    def cancel(self, request: Request) -> None:
        """Stop a request, from any thread, also in the middle of its prefill."""
        if request.finish_reason is not None:
            return
        request.cancelled = True
        self._stop()
        with self._lock:
            self._drop_cancelled()

    def _stop(self) -> None:
        """End the computation under way."""
        context = self._context
        if context is not None:
            context.abort.set()
        if self._draft_model is not None:
            self._draft_model.stop()

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """The events of one request, pumping `step()` while there are none.

        An event without token and reason means that a slice of the prompt was prefilled. Leaving
        the iterator early cancels the request. Raises Closed when the engine was closed meanwhile.
        """
        try:
            while request.finish_reason is None or request.events:
                while request.events:
                    yield request.events.popleft()
                with self._lock:
                    if request.finish_reason is None and not request.events:
                        self.step()
            if request.finish_reason == CLOSED:
                raise Closed("the model was closed while it was answering")
        finally:
            self.cancel(request)

    def state(self, tokens: Sequence[int]) -> tuple[list[int], memoryview] | None:
        """The ids and the KV cells that are held for a prompt like `tokens`, if any are."""
        with self._lock:
            self._open_context()
            return self._cache.state(tokens)

    def restore(self, ids: Sequence[int], state: bytearray) -> bool:
        """Put KV cells back, made by `state` under the same settings; False if they do not fit."""
        with self._lock:
            self._open_context()
            return len(ids) < self.n_ctx and self._cache.put(ids, state)

    def step(self) -> None:
        """Decode one batch for all requests and hand each its events."""
        with self._lock:
            context = self._open_context()
            context.abort.clear()
            self._drop_cancelled()
            try:
                self._admit()
                parts = self._fill_batch()
                if parts:
                    self._decode(context)
                for request, end, entry in parts:
                    self._advance(context, request, end, entry)
            except Cancelled:
                self._cache.forget_extra()
            except BaseException:
                self._cache.forget_extra()
                raise

    def _open_context(self) -> Context:
        if self._context is None:
            raise Closed("the engine was closed; load the model again")
        return self._context

    def _drop_cancelled(self) -> None:
        for request in [*self._running, *self._waiting]:
            if request.cancelled:
                self._finish(request, "cancelled")

    def _admit(self) -> None:
        """Give waiting requests free slots of the cache, first come, first served."""
        while self._waiting:
            slot = self._cache.take(self._waiting[0].tokens)
            if slot is None:
                return
            request = self._waiting.popleft()
            request.slot, request.n_cached = slot, len(slot.ids)
            self._running.append(request)

    def _fill_batch(self) -> list[tuple[Request, int, int]]:
        """Fill the batch; returns (request, how far its tokens go now, its last entry)."""
        self._batch.clear()
        # Running answers first, so that a long prompt never makes them wait.
        answering = [request for request in self._running if request.n_generated]
        parts = [self._add_answer(request, len(answering)) for request in answering]
        room = self._batch.capacity - len(self._batch)
        if answering:
            room = min(room, _SLICE_BESIDE_ANSWERS)
        for request in self._running:
            if not request.n_generated and room > 0:
                before = len(self._batch)
                parts.append(self._add(request, room))
                room -= len(self._batch) - before
        return parts

    def _add_answer(self, request: Request, n_answering: int) -> tuple[Request, int, int]:
        """The latest token, and guesses of those behind it."""
        slot, n = request.slot, len(request.tokens)
        assert slot is not None, "only requests with a slot run"
        rows = MAX_DRAFT + 1 - len(self._batch)
        left = request.params.max_tokens - request.n_generated
        most = min(rows - n_answering, left - 1, self.n_ctx - n - 1)
        request.draft = []
        if request.drafter is not None and most > 0:
            request.draft = request.drafter.propose(most, n_answering - 1)
        tokens = [request.tokens[-1], *request.draft]
        return request, n, self._batch.add(slot.seq, n - 1, tokens, logits=len(tokens))

    def _add(self, request: Request, room: int) -> tuple[Request, int, int]:
        slot = request.slot
        assert slot is not None, "only requests with a slot run"
        start = len(slot.ids)
        end = min(len(request.tokens), start + room)
        last = end == len(request.tokens)
        entry = self._batch.add(slot.seq, start, request.tokens[start:end], logits=last)
        return request, end, entry

    def _decode(self, context: Context) -> None:
        try:
            self._run_batch(context)
        except ContextOverflow:
            if not self._cache.forget_idle():
                raise
            self._run_batch(context)

    def _run_batch(self, context: Context) -> None:
        if len(self._batch) <= _SHORT_BATCH:
            context.decode(self._batch)
        else:
            run_interruptibly(lambda: context.decode(self._batch), context.abort.set)

    def _advance(self, context: Context, request: Request, end: int, entry: int) -> None:
        slot = request.slot
        if slot is None:
            return
        slot.ids.extend(request.tokens[len(slot.ids) : end])
        if end < len(request.tokens):
            request.events.append(Event(None))
            return
        draft, came = request.draft, []
        for row, guess in enumerate([*draft, None], entry - len(draft)):
            came.append(self._sample(context, request, row))
            self._take(request, came[-1])
            if came[-1] != guess or request.finish_reason is not None:
                break
            slot.ids.append(came[-1])
        if draft:
            request.draft = []
            context.remove(slot.seq, len(slot.ids))
        if request.drafter is not None:
            request.drafter.learn(draft, came)

    def _take(self, request: Request, token: int) -> None:
        """Hand out a token that was sampled, or what it ends the answer with."""
        now = time.perf_counter()
        request.last_token_at = now
        request.first_token_at = request.first_token_at or now
        if self._ends(request, token):
            self._finish(request, "stop")
            return
        request.tokens.append(token)
        request.events.append(Event(token))
        if request.n_generated >= request.params.max_tokens or len(request.tokens) >= self.n_ctx:
            self._finish(request, "length")

    def _sample(self, context: Context, request: Request, row: int) -> int:
        """Draw a request's next token from a row of logits, and note the log-probabilities."""
        token = context.sample(request.chain, row)
        if request.params.logprobs is not None:
            found = logprobs.of_row(context.row(row), token, request.params.logprobs)
            request.logprobs[request.n_generated :] = [found]
        return token

    def _ends(self, request: Request, token: int) -> bool:
        return token in request.params.stop_tokens or self.model.is_end(token)

    def _finish(self, request: Request, reason: str) -> None:
        if request.finish_reason is not None:
            return
        request.finish_reason = reason
        if reason != CLOSED:
            request.events.append(Event(None, reason))
        if request in self._running:
            self._running.remove(request)
        if request in self._waiting:
            self._waiting.remove(request)
        if request.slot is not None:
            self._cache.release(request.slot)
        request.chain.close()


def _check(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} is {value!r}, expected a whole number from {low} to {high}")


def _check_choice(name: str, value: str, known: dict[str, int]) -> None:
    if not isinstance(value, str) or value not in known:
        raise UsageError(f"{name} is {value!r}, expected one of {', '.join(known)}")
