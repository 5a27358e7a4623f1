"""The engine: generates many answers at once in one KV cache.

`step()` takes what every running request still has to feed (one token, or a slice of a prompt),
decodes it all as one batch and samples each request whose tokens are all decoded. Whoever waits
for a token calls `step()`: the engine has no thread of its own.

A request's `tokens` are the truth. A slot's `ids` say which of them the KV cache holds, and change
only after a decode succeeded. So an interrupt at any point leaves at most surplus cells in the
cache, and the next step removes those.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

from edgesppo.engine import config
from edgesppo.engine.draft_model import DraftModel
from edgesppo.engine.ngram_draft import Drafter
from edgesppo.engine.request import CLOSED, Event, Request, new_request
from edgesppo.engine.stepper import Stepper
from edgesppo.errors import Closed, ContextOverflow, UsageError
from edgesppo.llama import fork
from edgesppo.llama.fork import closed_by_fork
from edgesppo.planning import run_config
from edgesppo.planning.run_config import DEFAULT_BATCH, DEFAULT_ROW_COSTS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from edgesppo.engine.pace import Pace
    from edgesppo.llama.context import Context
    from edgesppo.llama.model import Model
    from edgesppo.sampling.params import SamplingParams


class Engine:
    """Generates answers for many sequences with one model. Close it before the model.

    `n_ctx` is in tokens, by default what the model was trained for; all `n_seqs` sequences share
    it. Prompts are computed `n_ubatch` tokens at a time, by `n_threads_batch` threads; answers by
    `n_threads`, by default one per core, or one for a model of less than 67 MB. `cache_type` is the
    type of the KV cache: "f16", "f32" or "q8_0".

    With `plain_from`, parts of prompts of so many tokens or more are computed in a second context,
    over the weights as they are in the file: for a model whose own are repacked; see long_prompts.

    With `draft_costs`, the next tokens are predicted from the text so far and verified in one
    batch where that pays: the costs are those of batches of ROWS rows, relative to one row. None
    turns that off. `draft_model` predicts as well; it is closed with the engine. Drafts change no
    answer except by the rounding of larger batches, which can decide near ties.

    With a `pace`, the number of threads changes while answers are slow; see there.

    Raises UsageError for settings out of range, and OutOfMemory.
    """

    is_remote = False  # its cells are in this process

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
        plain_from: int | None = None,
        draft_costs: Sequence[float] | None = DEFAULT_ROW_COSTS,
        draft_model: DraftModel | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.model = model
        self.name = model.path.name  # until it is given another one
        if draft_model is not None and not isinstance(draft_model, DraftModel):
            raise UsageError(f"draft_model is {draft_model!r}, expected a DraftModel")
        config.check(model.n_ctx_train, plain_from=plain_from)
        params = config.context_params(
            model.n_ctx_train,
            run_config.default_threads(model.summary),
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
        self._stepper = Stepper(model, params, plain_from, pace)
        self._context: Context | None = self._stepper.context
        self.settings = f"{cache_type} {flash_attention} {model.n_gpu_layers}"
        self.n_ctx = params.n_ctx
        self.n_seqs = n_seqs
        self.n_threads = params.n_threads
        self.n_threads_batch = params.n_threads_batch
        self.flash_attention = flash_attention
        drafts = config.drafts_enabled(params.n_ubatch, draft_costs)
        self._draft_costs = draft_costs if drafts else None
        self._draft_model = draft_model
        self._cache = self._stepper.cache
        self._schedule = self._stepper.schedule
        self._unfinished = False  # whether the last step was left before its end
        self._cancelled = False  # whether a request was, while another thread took a step
        self._closing = False
        self._parent: int | None = None  # the process that made it, in a child of that
        self._lock = threading.RLock()
        fork.track(self)

    def close(self) -> None:
        """End every request and free the context; harmless when repeated.

        Streams of unfinished requests raise Closed.
        """
        self._closing = True  # so that threads in `stream` do not keep the lock among themselves
        if self._context is not None:
            self._abort()
        with self._lock:
            context, self._context = self._context, None
            for request in self._schedule.requests():
                self._schedule.finish(request, CLOSED)
            if context is not None:
                self._stepper.close()
                if self._draft_model is not None:
                    self._draft_model.close()

    def after_fork(self, parent: int) -> None:
        """Let go of the context: a thread that no longer exists may hold the lock."""
        self._context, self._parent, self._lock = None, parent, threading.RLock()
        for request in self._schedule.requests():
            request.finish_reason = CLOSED

    def prepare(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        owner: object = None,
        grammar: str | None = None,
        salt: str = "",
    ) -> Request:
        """A request to be passed to `add`. It waits for no step, and may itself take seconds.

        With a `grammar`, made by `schema.grammar`, the answer follows it. With an `owner`, the
        request is cancelled when the owner is garbage-collected: an interrupt can hit the very
        code that would have cancelled it. Cells of the KV cache are reused only for the same
        `salt`, and salts take turns.

        Raises ContextOverflow when the prompt leaves no room for an answer, UsageError for ids
        outside the vocabulary, and Closed.
        """
        request = new_request(
            *(prompt, params),
            model=self.model,
            n_ctx=self.n_ctx,
            grammar=grammar,
            is_alone=self.n_seqs == 1,
        )
        request.salt = salt
        if owner is not None:
            request.owner = weakref.ref(owner)
        if self._draft_costs:
            request.drafter = Drafter(request.tokens, self._draft_costs, self._draft_model)
        return request

    def add(self, request: Request) -> Request:
        """Queue a request that `prepare` made, and return it. Raises Closed."""
        with self._lock:
            self._open_context()
            request.submitted_at = time.perf_counter()
            self._schedule.add(request)
        return request

    def overflow(self, n_tokens: int, *, at_least: bool = False) -> ContextOverflow:
        """The error for a prompt of `n_tokens`, or of `at_least` as many, to be raised."""
        trained = self.model.n_ctx_train
        return ContextOverflow.of_prompt(n_tokens, self.n_ctx, trained, at_least=at_least)

    def cancel(self, request: Request) -> None:
        """Stop a request. Any thread may call this, also in the middle of the prefill.

        Another thread's step is cut short if it prefills this prompt or computes for nobody else.
        Otherwise it goes on for the others, and ends the request when it is done.
        """
        cut_short = self.withdraw(request, at_once=not request.is_answering)
        if request.finish_reason is None and self._lock.acquire(blocking=cut_short):
            try:
                self._unfinished = True  # in case this is interrupted
                self._schedule.drop_unwanted()
            finally:
                self._lock.release()

    def withdraw(self, request: Request, *, at_once: bool = False) -> bool:
        """As `cancel`, but without waiting: the next step of another thread ends the request.

        Returns whether the step that is under way is cut short: if it computes for this request,
        and for nobody else or `at_once`.
        """
        if request.finish_reason is not None:
            return False
        request.cancelled = self._cancelled = True
        cut_short = request.slot is not None and (at_once or self._schedule.n_running == 1)
        if cut_short:
            self._abort()
        return cut_short

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """The events of one request, calling `step()` while there are none.

        An event without token and reason means that a slice of the prompt was prefilled. Leaving
        the iterator early cancels the request. Raises Closed when the engine is closed meanwhile,
        and what made sampling fail.
        """
        n_given, prefilled = request.n_prompt, request.n_prefilled
        noticing = self._stepper.noticing
        try:
            while True:
                reason = request.finish_reason  # read before the tokens: none follow it
                while n_given < len(request.tokens):
                    n_given += 1
                    yield Event(request.tokens[n_given - 1])
                if reason is not None:
                    self.raise_failure(request)
                    yield Event(None, reason)
                    return
                if prefilled < request.n_prefilled < request.n_prompt:
                    prefilled = request.n_prefilled
                    yield Event(None)
                with self._lock:
                    if not request.has_more_than(n_given, prefilled):
                        self.step()
                for source in noticing:  # here, since this is done for every token
                    if source.notice is not None:
                        self.tell()
        finally:
            self.cancel(request)

    def raise_failure(self, request: Request) -> None:
        """Raise what ended a request before its time: Closed, or what made sampling fail."""
        if request.error is not None:
            raise request.error
        if request.finish_reason == CLOSED:
            if self._parent is not None:
                raise closed_by_fork(self._parent)
            raise Closed("the model was closed while it was answering")

    def tell(self) -> None:
        """Give out notices about speed, if there are any; `stream` does it by itself."""
        self._stepper.tell()

    def count_cached(self, tokens: Sequence[int]) -> int:
        """The number of a prompt's tokens that are in the KV cache, and so need no prefill."""
        with self._lock:
            self._open_context()
            return self._cache.count_cached(tokens)

    @property
    def n_running(self) -> int:
        """How many requests have a sequence."""
        return self._schedule.n_running

    def kv_share(self) -> float:
        """The share of the KV cache that holds tokens, from 0 to 1; it waits for no step."""
        return min(1.0, self._cache.n_held() / self.n_ctx)

    def state(self, tokens: Sequence[int], limit: int) -> tuple[list[int], memoryview] | None:
        """The cached ids and KV cells of the sequence that shares the most with `tokens`.

        None if no sequence shares anything, or its cells take more than `limit` bytes.
        """
        with self._lock:
            self._open_context()
            return self._cache.state(tokens, limit)

    def states(
        self, least: int, limit: int
    ) -> Iterator[tuple[str, list[int], bytearray | memoryview]]:
        """The salt, ids and KV cells of each sequence of at least `least` tokens, the latest first.

        Those whose cells take more than `limit` bytes are left out.
        """
        states = self._cache.states(least, limit)
        while True:
            with self._lock:  # not while the caller writes them
                self._open_context()
                found = next(states, None)
            if found is None:
                return
            yield found

    def shorten(self, request: Request, n: int) -> None:
        """Drop the KV cells of a request that has ended, but for its first `n` tokens."""
        with self._lock:
            self._open_context()
            self._schedule.sync_slots()
            self._cache.shorten(request.tokens, n, request.salt)

    def restore(self, ids: Sequence[int], state: bytearray | memoryview, salt: str = "") -> bool:
        """Put back KV cells that `state` returned under the same settings.

        Returns False if they do not fit.
        """
        with self._lock:
            self._open_context()
            self._schedule.sync_slots()
            return len(ids) < self.n_ctx and self._cache.put(ids, state, salt)

    def step(self, *, for_throughput: bool = False) -> None:
        """Decode one batch for all requests, and sample their next tokens.

        With `for_throughput` it takes as much of a prompt as a batch holds: running answers wait
        longer for it, and all answers together are done sooner.

        An exception at any point, KeyboardInterrupt included, loses at most this step's work.
        """
        with self._lock:
            self._resume()
            self._stepper.slice.is_whole = for_throughput
            unfinished, self._unfinished = self._unfinished, True
            if unfinished:
                self._stepper.recover()
            else:
                self._schedule.drop_unwanted()
            self._schedule.admit()
            self._unfinished = not self._stepper.step()
            if self._cancelled:
                self._cancelled = False
                self._schedule.drop_unwanted()

    def _open_context(self) -> None:
        """Raise Closed after `close()`."""
        if self._parent is not None:
            raise closed_by_fork(self._parent)
        if self._context is None or self._closing:
            raise Closed("the engine was closed; load the model again")

    def _abort(self) -> None:
        """Stop the running decode, or the next one."""
        context = self._context
        if context is not None:
            context.abort.set()
        if self._draft_model is not None:
            self._draft_model.stop()

    def _resume(self) -> None:
        """Allow decodes again. Raises Closed after `close()`.

        Whoever called `_abort` recorded the reason first, and `step` checks it next.
        """
        if self._context is not None:
            self._context.abort.clear()
        if self._draft_model is not None:
            self._draft_model.resume()
        self._open_context()
