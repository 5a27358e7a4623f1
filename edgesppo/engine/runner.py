"""Run one batch: decode it so that Ctrl-C can end it, then sample the rows of each request."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from edgesppo.engine.pace import WINDOW_S, WINDOW_STEPS
from edgesppo.errors import OutOfMemory
from edgesppo.llama import logprobs
from edgesppo.system import memory_guard
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from edgesppo.engine.pace import Pace
    from edgesppo.engine.request import Request
    from edgesppo.llama.batch import Batch
    from edgesppo.llama.context import Context

# Batches of at most this many tokens are so quick that Ctrl-C can wait for them.
_SHORT = 8


class Runner:
    """Decodes batches in a context and samples from them.

    `n_started` is how many threads a batch may start. With a `pace`, the time of steps of one token
    is followed, and the number of threads is what it chooses.
    """

    def __init__(self, context: Context, n_started: int, pace: Pace | None = None) -> None:
        self._context = context
        self._n_started = n_started
        self.pace = pace
        self._steps, self._seconds = 0, 0.0  # of one token, since the pace was told
        self._n_threads = context.params.n_threads
        self._computed_on = 0  # the thread that computed the last short batch

    def run(self, batch: Batch) -> None:
        """Decode a batch.

        Raises what `Context.decode` raises, OutOfMemory when there is no memory to start the
        compute threads, and KeyboardInterrupt.
        """
        context, caller, short = self._context, threading.get_ident(), batch.n_tokens <= _SHORT
        if not context.keeps_threads:
            # llama.cpp starts them anew for each batch, and aborts if it cannot.
            memory_guard.require_threads(self._n_started)
        elif not short or caller != self._computed_on or memory_guard.is_limited():
            # One waits for Ctrl-C. Its room is a margin, too: llama.cpp aborts for want of memory.
            memory_guard.require_threads(1)
        if short:
            started = time.perf_counter()
            context.decode(batch)
            self._computed_on = caller
            if self.pace is not None and batch.n_tokens == 1:
                self._steps += 1
                self._seconds += time.perf_counter() - started
                if self._steps >= WINDOW_STEPS and self._seconds >= WINDOW_S:
                    self._set_pace(self.pace)
        else:
            run_interruptibly(lambda: context.decode(batch), context.abort.set)

    def _set_pace(self, pace: Pace) -> None:
        """Tell the pace how fast the last steps were, and use the threads that it chooses."""
        steps, seconds = self._steps, self._seconds
        self._steps, self._seconds = 0, 0.0
        with contextlib.suppress(Exception):  # the answer matters more
            pace.note(steps, seconds)
            if pace.n_threads > self._n_threads:
                try:
                    memory_guard.require_threads(self._n_started)
                except OutOfMemory:
                    pace.keep(self._n_threads)
            if pace.n_threads != self._n_threads:
                self._context.set_threads(pace.n_threads, pace.n_threads_batch)
                self._n_threads = pace.n_threads

    def sample(self, request: Request, entry: int) -> tuple[list[int], str | None]:
        """Sample a request's rows of the decoded batch; `entry` is the last of them.

        Every row is sampled from the model's own distribution, and a draft token is accepted only
        if it equals the token drawn in its place. So drafts change no distribution, and an answer
        only where the rounding of larger batches decides a near tie.

        Returns the tokens drawn, and "stop" or "length" if they end the answer, else None. The
        tokens are appended to the request's, except an end token.
        """
        context = self._context
        drawn: list[int] = []
        draft, n_logprobs = request.draft, request.params.logprobs
        for row, drafted in enumerate([*draft, None], entry - len(draft)):
            token = context.sample(request.chain, row)
            drawn.append(token)
            if token in request.end_tokens:
                return drawn, "stop"
            if n_logprobs is not None:
                found = logprobs.of_row(context.row(row), token, n_logprobs)
                request.logprobs[request.n_generated :] = [found]
            request.tokens.append(token)
            if request.is_full:
                return drawn, "length"
            if token != drafted:
                break
        return drawn, None
