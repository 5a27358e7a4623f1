"""Compute whole sequences of token ids, and look at the logits of every token.

For measuring, not for answers: a context of its own, one sequence at a time, no sampling. Logits
are shown block by block where llama.cpp keeps them, because those of a long text would take
gigabytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.engine import config
from edgesppo.errors import Cancelled
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.planning.run_config import DEFAULT_BATCH, ContextParams
from edgesppo.system import memory_guard
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgesppo.llama.graph_observer import Observer
    from edgesppo.llama.model import Model
    from edgesppo.planning.run_config import RunConfig

# Bytes of logits in one block: 128 rows of Gemma-2's vocabulary.
_BLOCK_BYTES = 132 << 20
_SMALLEST = 16  # of llama.cpp's contexts


class ForwardPass:
    """A context for sequences of up to `n_ctx` tokens. Close it before the model.

    `observer` is shown the inputs of matrix products. Raises OutOfMemory.
    """

    def __init__(
        self,
        model: Model,
        tuning: RunConfig,
        n_ctx: int,
        *,
        observer: Observer | None = None,
    ) -> None:
        self.n_vocab = model.n_vocab
        self._n_rows = min(DEFAULT_BATCH, max(_SMALLEST, _BLOCK_BYTES // (4 * model.n_vocab)))
        params = ContextParams(
            n_ctx=max(n_ctx, _SMALLEST),
            n_batch=DEFAULT_BATCH,
            # An observer is shown the graph once for each decode, so all of it is one micro-batch.
            n_ubatch=min(DEFAULT_BATCH, tuning.n_ubatch) if observer is None else DEFAULT_BATCH,
            n_outputs=self._n_rows,
            n_threads=tuning.n_threads_batch,
            n_threads_batch=tuning.n_threads_batch,
            flash_attention=tuning.flash_attention,
        )
        config.require_memory(model.summary, params)
        self._n_threads = config.threads_started(params)
        self._observer = observer
        self._context = Context(model.weights, params, observer)
        self._batch = Batch(self._context.n_batch)
        self._stopped = False

    def close(self) -> None:
        """Free the context."""
        self._context.close()

    def stop(self) -> None:
        """End the computation that is running, and every later one, with Cancelled.

        Any thread may call it.
        """
        self._stopped = True
        self._context.abort.set()

    def blocks(self, ids: Sequence[int], first: int) -> Iterator[tuple[int, memoryview]]:
        """Compute a sequence; yields (position, logits) for every block of tokens from `first` on.

        The logits are those of consecutive tokens from that position on, as the bytes of n_vocab
        float32 each; they are valid until the next block. The token at `position` is predicted by
        the logits of the one before it.
        """
        self._context.remove(0, 0)
        for start in range(0, first, self._batch.capacity):
            self._decode(ids, start, min(start + self._batch.capacity, first), logits=False)
        for start in range(first, len(ids), self._n_rows):
            n = self._decode(ids, start, min(start + self._n_rows, len(ids)), logits=True)
            yield start, self._context.rows(n)

    def _decode(self, ids: Sequence[int], start: int, end: int, *, logits: bool) -> int:
        n = end - start
        self._batch.clear()
        self._batch.add(0, start, ids[start:end], logits=n if logits else 0)
        memory_guard.require_threads(self._n_threads)
        self._context.abort.clear()
        if self._stopped:
            raise Cancelled("stopped while the model was computing")
        if self._observer is not None:
            self._observer.begin()
        run_interruptibly(lambda: self._context.decode(self._batch), self._context.abort.set)
        if self._observer is not None:
            self._observer.check()
        return n
