"""Run one batch: decode it so that Ctrl-C can end it, then sample the rows of each request."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgesppo.llama import logprobs
from edgesppo.system import memory_guard
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from edgesppo.engine.request import Request
    from edgesppo.llama.batch import Batch
    from edgesppo.llama.context import Context

# Batches of at most this many tokens are so quick that Ctrl-C can wait for them.
_SHORT = 8


class Runner:
    """Decodes batches in a context and samples from them.

    `thread_bytes` is the memory that the compute threads may need, in bytes.
    """

    def __init__(self, context: Context, thread_bytes: int) -> None:
        self._context = context
        self._thread_bytes = thread_bytes
        self._computed_on = 0  # the thread that computed the last short batch

    def run(self, batch: Batch) -> None:
        """Decode a batch.

        Raises what `Context.decode` raises, OutOfMemory when there is no memory to start the
        compute threads, and KeyboardInterrupt.
        """
        context, caller, short = self._context, threading.get_ident(), batch.n_tokens <= _SHORT
        if not short or caller != self._computed_on:  # then threads are started
            advice = "close other programs"
            memory_guard.require(
                "starting threads to compute", memory=self._thread_bytes, advice=advice
            )
        if short:
            context.decode(batch)
            self._computed_on = caller
        else:
            run_interruptibly(lambda: context.decode(batch), context.abort.set)

    def sample(self, request: Request, entry: int) -> tuple[list[int], str | None]:
        """Sample a request's rows of the decoded batch; `entry` is the last of them.

        Every row is sampled from the model's own distribution, and a draft token is accepted only
        if it equals the token drawn in its place. So drafts change no answer.

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
