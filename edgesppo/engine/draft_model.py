"""Owns guesses that a second, smaller model of the same vocabulary makes.

It follows one text at a time in a context of its own; what it still holds of the text is kept.
What it has to catch up with it reads in slices, one a step of the engine: meanwhile it guesses
nothing, and nobody's answer waits for it longer than for a slice of a prompt.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from edgesppo.engine import config
from edgesppo.errors import Cancelled, EdgesppoError, UsageError
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context, ContextParams
from edgesppo.llama.model import Model
from edgesppo.llama.sampler_chain import build_chain
from edgesppo.planning import memory_plan
from edgesppo.sampling.params import SamplingParams
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.planning.run_config import RunConfig

# Tokens of the text that it reads in one step, at most.
SLICE = 64


def needs(summary: Summary, tuning: RunConfig, n_ctx: int) -> MemoryPlan:
    """What such a model takes beside one of `n_ctx` tokens with these settings."""
    own = dataclasses.replace(tuning, flash_attention="auto", n_ubatch=SLICE)
    n_ctx = min(n_ctx, memory_plan.trained_context(summary))
    return memory_plan.plan_memory(
        summary, own, n_ctx=n_ctx, n_seqs=1, n_batch=SLICE, cache_type="f16"
    )


def open_draft_model(
    summary: Summary, target: Model, tuning: RunConfig, *, n_ctx: int | None, gpu: str | int
) -> DraftModel:
    """Load a file to guess for `target`, with the settings that are its. Raises UsageError."""
    model = Model(summary.path, gpu=gpu, repack=tuning.repack, summary=summary)
    try:
        return DraftModel(
            model,
            target,
            n_ctx=n_ctx or target.n_ctx_train,
            n_threads=tuning.n_threads,
            n_threads_batch=tuning.n_threads_batch,
        )
    except BaseException:
        model.close()
        raise


class DraftModel:
    """A model that guesses for another. `close()` frees its context and its weights.

    Raises UsageError where its vocabulary is another: its guesses would mean something else.
    """

    def __init__(
        self,
        model: Model,
        target: Model,
        *,
        n_ctx: int,
        n_threads: int,
        n_threads_batch: int | None = None,
    ) -> None:
        check_vocabulary(model, target)
        self._model = model
        self._n_ctx = min(n_ctx, model.n_ctx_train)
        # Both read all of their weights for every token, and that is what a token costs.
        self.cost = model.summary.data_bytes / target.summary.data_bytes
        params = ContextParams(
            n_ctx=self._n_ctx,
            n_batch=SLICE,
            n_ubatch=SLICE,
            n_threads=n_threads,
            n_threads_batch=n_threads_batch or n_threads,
        )
        config.ask_for_memory(model.summary, params)
        self._chain = build_chain(SamplingParams(temperature=0), model.weights, self._n_ctx)
        self._batch = Batch(SLICE)
        self._held: list[int] = []
        self._lock = threading.Lock()
        self._context = Context(model.weights, params)

    def close(self) -> None:
        """Free everything."""
        with self._lock:
            self._chain.close()
            self._context.close()
            self._model.close()

    def stop(self) -> None:
        """End the guess under way, from any thread; until `go_on` there is no other."""
        self._context.abort.set()

    def go_on(self) -> None:
        """Guess again after a `stop`."""
        self._context.abort.clear()

    def guess(self, tokens: Sequence[int], n: int) -> list[int]:
        """The `n` tokens that this model finds most probable behind `tokens`; fewer on failure.

        None while it catches up with the text. Raises BadModelFile when its file was changed.
        """
        found: list[int] = []
        if not tokens or len(tokens) + n > self._n_ctx:
            return found
        with self._lock:
            self._model.file.check()
            try:
                if not self._follow(tokens):
                    return found
                for _ in range(n):
                    row = len(self._batch) - 1
                    found.append(self._context.sample(self._chain, row))
                    if len(found) < n:
                        self._decode(found[-1:])
            except Cancelled:  # what it has read stays
                return []
            except EdgesppoError:
                self._forget(0)
        return found

    def _follow(self, tokens: Sequence[int]) -> bool:
        """Read the text, or the next slice of it; whether that was all.

        The last token is always computed anew, for what follows it.
        """
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
        self._decode(tokens[keep : keep + SLICE])
        return len(self._held) == len(tokens)

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
