"""Draft tokens with a second, smaller model of the same vocabulary.

The draft model follows one text at a time in a context of its own, and keeps the part that the
next text shares. It catches up with a text in slices, one per step of the engine. Until it has, it
drafts nothing; so no answer waits for it longer than for a slice of a prompt.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgesppo.engine import config
from edgesppo.engine.kv_cache import common_prefix
from edgesppo.errors import Cancelled, EdgesppoError, UsageError
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from edgesppo.llama.sampler_chain import build_chain
from edgesppo.planning.run_config import DRAFT_SLICE, ContextParams
from edgesppo.sampling.params import SamplingParams
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.run_config import RunConfig


def open_draft_model(
    summary: Summary, target: Model, tuning: RunConfig, *, n_ctx: int | None, gpu: str | int
) -> DraftModel:
    """Load a file as the draft model of `target`, with the target's settings.

    Raises what `Model` and `DraftModel` raise.
    """
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
    """A smaller model that drafts tokens for `target`. `close()` frees its context and weights.

    Raises UsageError if the two vocabularies differ, because its tokens would mean something else.
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
        # A token costs reading all of a model's weights, in both models.
        self.cost = model.summary.data_bytes / target.summary.data_bytes
        params = ContextParams(
            n_ctx=self._n_ctx,
            n_batch=DRAFT_SLICE,
            n_ubatch=DRAFT_SLICE,
            n_threads=n_threads,
            n_threads_batch=n_threads_batch or n_threads,
        )
        config.require_memory(model.summary, params, model.n_gpu_layers)
        self._chain = build_chain(SamplingParams(temperature=0), model.weights, self._n_ctx)
        self._batch = Batch(DRAFT_SLICE)
        self._cached: list[int] = []  # the token ids in the KV cache
        self._lock = threading.Lock()
        self._context = Context(model.weights, params)

    def close(self) -> None:
        """Free the sampler, the context and the weights."""
        with self._lock:
            self._chain.close()
            self._context.close()
            self._model.close()

    def stop(self) -> None:
        """Stop drafting, from any thread, until `resume`."""
        self._context.abort.set()

    def resume(self) -> None:
        """Allow drafting again after `stop`."""
        self._context.abort.clear()

    def propose(self, tokens: Sequence[int], n: int) -> list[int]:
        """The `n` tokens that this model finds most probable after `tokens`.

        Empty while it catches up with the text, fewer than `n` if decoding fails. Raises
        BadModelFile when its file was changed.
        """
        found: list[int] = []
        if not tokens or len(tokens) + n > self._n_ctx:
            return found
        with self._lock:
            self._model.file.check()
            try:
                if not self._catch_up(tokens):
                    return found
                for _ in range(n):
                    row = len(self._batch) - 1
                    found.append(self._context.sample(self._chain, row))
                    if len(found) < n:
                        self._decode(found[-1:])
            except Cancelled:  # what is in the cache stays
                return []
            except EdgesppoError:
                self._truncate(0)
        return found

    def _catch_up(self, tokens: Sequence[int]) -> bool:
        """Decode the rest of the text, or the next slice of it; returns whether that was all.

        The last token is always decoded again, because its logits are needed.
        """
        keep = common_prefix(self._cached, tokens[:-1])
        # Cells that the sliding window has overwritten cannot be reused.
        start = max(0, keep - self._model.weights.n_swa)
        if not 0 <= self._context.first_position(0) <= start:
            keep = 0
        self._truncate(keep)
        self._decode(tokens[keep : keep + DRAFT_SLICE])
        return len(self._cached) == len(tokens)

    def _truncate(self, keep: int) -> None:
        """Keep only the first `keep` tokens in the cache."""
        del self._cached[keep:]
        self._context.remove(0, keep)

    def _decode(self, tokens: Sequence[int]) -> None:
        self._batch.clear()
        self._batch.add(0, len(self._cached), tokens, logits=1)
        run_interruptibly(lambda: self._context.decode(self._batch), self._context.abort.set)
        self._cached.extend(tokens)


def check_vocabulary(model: Model, target: Model) -> None:
    """Raise UsageError if the vocabularies differ, with the first token that does."""
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
