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

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.llama.graph_observer import Observer
    from edgesppo.llama.weights import Weights
    from edgesppo.planning.run_config import RunConfig

# Rows of logits in one block. Flash attention for fewer tokens is another kernel, with slightly
# other results than for a large batch; more rows take memory, twice: in the graph and behind it.
_FEWEST_ROWS = 64
_BLOCK_BYTES = 16 << 20  # of a small vocabulary's logits
_SMALLEST = 16  # of llama.cpp's contexts


def rows_of_block(n_vocab: int) -> int:
    """The most rows of logits that are computed at a time."""
    return min(DEFAULT_BATCH, max(_FEWEST_ROWS, _BLOCK_BYTES // (4 * n_vocab)))


class ForwardPass:
    """A context for sequences of up to `n_ctx` tokens. Close it before the weights.

    `summary` is the header of the file that they are from, `n_rows` how many rows of logits are
    computed at a time. `observer` is shown the inputs of matrix products. Raises OutOfMemory.
    """

    def __init__(
        self,
        weights: Weights,
        summary: Summary,
        tuning: RunConfig,
        n_ctx: int,
        *,
        n_rows: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.n_vocab = weights.n_vocab
        self.n_threads = tuning.n_threads_batch
        self._n_rows = n_rows or rows_of_block(weights.n_vocab)
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
        config.require_memory(summary, params)
        self._threads_started = config.threads_started(params)
        self._observer = observer
        self._context = Context(weights, params, observer)
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
        # Only whole blocks, if need be with tokens before `first`.
        begin = max(0, len(ids) - self._n_rows * -(-(len(ids) - first) // self._n_rows))
        for start in range(0, begin, self._batch.capacity):
            self._decode(ids[: min(start + self._batch.capacity, begin)], start, 0)
        for start in range(begin, len(ids), self._n_rows):
            block = ids[: start + self._n_rows]
            position = max(start, first)
            self._decode(block, start, len(block) - position)
            yield position, self._context.rows(len(block) - position)

    def _decode(self, ids: Sequence[int], start: int, n_logits: int) -> None:
        """Decode the tokens from `start` on, and compute the logits of the last `n_logits`."""
        self._batch.clear()
        self._batch.add(0, start, ids[start:], logits=n_logits)
        memory_guard.require_threads(self._threads_started)
        self._context.abort.clear()
        if self._stopped:
            raise Cancelled("stopped while the model was computing")
        if self._observer is not None:
            self._observer.begin()
        run_interruptibly(lambda: self._context.decode(self._batch), self._context.abort.set)
        if self._observer is not None:
            self._observer.check()
