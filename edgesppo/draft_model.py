"""Owns guesses that a second, smaller model of the same vocabulary makes.

It follows one text at a time in a context of its own; what it still holds of the text is kept.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgesppo._llama import Context, ContextParams
from edgesppo.batch import Batch
from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.interrupt import run_interruptibly
from edgesppo.sampler import SamplingParams, build_chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.model import Model

_BATCH = 512


class DraftModel:
    """A model that guesses for another. `close()` frees its context and its weights.

    Raises UsageError where its vocabulary is another: its guesses would mean something else.
    """

    def __init__(self, model: Model, target: Model, *, n_ctx: int, n_threads: int) -> None:
        check_vocabulary(model, target)
        self._model = model
        self._n_ctx = min(n_ctx, model.n_ctx_train)
        # Both read all of their weights for every token, and that is what a token costs.
        self.cost = model.summary.data_bytes / target.summary.data_bytes
        params = ContextParams(
            n_ctx=self._n_ctx, n_batch=_BATCH, n_threads=n_threads, n_threads_batch=n_threads
        )
        self._context = Context(model.weights, params)
        self._chain = build_chain(SamplingParams(temperature=0), model.weights, self._n_ctx)
        self._batch = Batch(_BATCH)
        self._held: list[int] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Free everything."""
        with self._lock:
            self._chain.close()
            self._context.close()
            self._model.close()

    def stop(self) -> None:
        """End the guess under way, from any thread."""
        self._context.abort.set()

    def guess(self, tokens: Sequence[int], n: int) -> list[int]:
        """The `n` tokens that this model finds most probable behind `tokens`; fewer on failure."""
        found: list[int] = []
        if not tokens or len(tokens) + n > self._n_ctx:
            return found
        with self._lock:
            self._context.abort.clear()
            try:
                self._follow(tokens)
                for _ in range(n):
                    row = len(self._batch) - 1
                    found.append(self._context.sample(self._chain, row))
                    if len(found) < n:
                        self._decode(found[-1:])
            except EdgesppoError:
                self._forget(0)
        return found

    def _follow(self, tokens: Sequence[int]) -> None:
        """Hold exactly these tokens; the last is always computed anew, for what follows it."""
        keep = 0
        for one, other in zip(self._held, tokens[:-1], strict=False):
            if one != other:
                break
            keep += 1
        # Cells that the sliding window has overwritten do not come back.
        start = max(0, keep - self._model.weights.n_swa)
        if not 0 <= self._context.first_position(0) <= start:
            keep = 0
        self._forget(keep)
        for first in range(keep, len(tokens), _BATCH):
            self._decode(tokens[first : first + _BATCH])

    def _forget(self, keep: int) -> None:
        del self._held[keep:]
        self._context.remove(0, keep)

    def _decode(self, tokens: Sequence[int]) -> None:
        self._batch.clear()
        self._batch.add(0, len(self._held), tokens, logits=1)
        run_interruptibly(lambda: self._context.decode(self._batch), self._context.abort.set)
        self._held.extend(tokens)


def check_vocabulary(model: Model, target: Model) -> None:
    """Raises UsageError, naming the first token that differs."""
    if model.n_vocab != target.n_vocab:
        raise UsageError(
            f"the draft model {model.path} has {model.n_vocab:,} tokens, {target.path} has "
            f"{target.n_vocab:,}; a draft model must have the same vocabulary"
        )
    for token in range(target.n_vocab):
        names = model.weights.name(token), target.weights.name(token)
        kinds = model.is_control(token), target.is_control(token)
        if names[0] != names[1] or kinds[0] != kinds[1]:
            mine, other = (name.decode("utf-8", "replace") for name in names)
            what = f"is {mine!r}" if mine != other else f"is {mine!r} of another kind"
            raise UsageError(
                f"token {token} of the draft model {model.path} {what}, in {target.path} it is "
                f"{other!r}; a draft model must have the same vocabulary"
            )
