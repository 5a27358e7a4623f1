"""The log-probability of every token of a text or a chat, under a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.chat.result import TokenLogprob
from edgesppo.engine.forward import ForwardPass
from edgesppo.errors import Cancelled, ContextOverflow
from edgesppo.llama import logprobs
from edgesppo.llama.fork import ForkSafeLock
from edgesppo.llama.tokenizer import model_closed
from edgesppo.system.signals import run_interruptibly, shielded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.model import Model
    from edgesppo.planning.run_config import RunConfig


class Scorer:
    """Scores token ids under one model; safe to use from several threads, which take turns."""

    def __init__(self, model: Model, tuning: RunConfig, n_ctx: int) -> None:
        self._model = model
        self._tuning = tuning
        self._n_ctx = n_ctx
        self._lock = ForkSafeLock()
        self._running: _Call | None = None
        self._closed = False

    def close(self) -> None:
        """Stop what is being scored, and wait until it has ended: it then raises Closed."""
        self._closed = True
        with shielded():
            running = self._running
            if running is not None:
                running.stop()
            with self._lock:
                pass

    def score(self, ids: Sequence[int], n_top: int) -> list[TokenLogprob]:
        """Every id but the first, given those before it, with the `n_top` most probable ones.

        Raises ContextOverflow, OutOfMemory and Closed.
        """
        if len(ids) > self._n_ctx:
            raise ContextOverflow(
                f"there are {len(ids):,} tokens to score, but the context holds {self._n_ctx:,}: "
                "shorten the text, or use a larger n_ctx (--n-ctx)",
                needed=len(ids),
                available=self._n_ctx,
            )
        found: list[TokenLogprob] = []
        call = _Call()

        # The lock may be taken only where no Ctrl-C can interrupt: in a thread of its own.
        def work() -> None:
            with self._lock:
                self._running = call
                try:
                    found.extend(self._score(ids, n_top, call))
                finally:
                    self._running = None

        try:
            run_interruptibly(work, call.stop)
        except Cancelled:
            raise model_closed(self._model.path) from None
        return found

    def _score(self, ids: Sequence[int], n_top: int, call: _Call) -> list[TokenLogprob]:
        weights = self._model.weights  # raises Closed
        if self._closed:
            raise model_closed(self._model.path)
        forward = ForwardPass(weights, self._model.summary, self._tuning, len(ids))
        try:
            call.begin(forward)
            found: list[TokenLogprob] = []
            for position, block in forward.blocks(ids[:-1], 0):
                size = 4 * forward.n_vocab
                for n in range(len(block) // size):
                    token = ids[position + n + 1]
                    row = block[n * size : (n + 1) * size]
                    found.append(self._entry(token, logprobs.of_row(row, token, n_top)))
            return found
        finally:
            call.end()
            forward.close()

    def _entry(self, token: int, found: logprobs.RowLogprobs) -> TokenLogprob:
        piece = self._model.piece
        top = tuple(TokenLogprob(other, piece(other), value) for other, value in found.top)
        return TokenLogprob(token, piece(token), found.logprob, top)


class _Call:
    """One call of `score`, which can be stopped at any moment, also before it computes."""

    def __init__(self) -> None:
        self._forward: ForwardPass | None = None
        self._stopped = False

    def begin(self, forward: ForwardPass) -> None:
        """Compute with this, unless the call was stopped before."""
        self._forward = forward
        if self._stopped:
            forward.stop()

    def end(self) -> None:
        """Compute no more."""
        self._forward = None

    def stop(self) -> None:
        """End the call with Cancelled, from any thread."""
        self._stopped = True
        forward = self._forward
        if forward is not None:
            forward.stop()
