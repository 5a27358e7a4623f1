"""Time one model in one context: short prompts, answers and batches of meaningless tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.planning.run_config import ROWS, ContextParams
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from edgesppo.llama.weights import Weights
    from edgesppo.planning.run_config import RunConfig

LENGTHS = (2048, 1024, 512, 256, 128, 64, 32)  # of prompts that are timed, in tokens
_BATCH = 512
_WARM_UP = 32
_DECODED = 8  # tokens of an answer
_ROUNDS = 3


class Probe:
    """A context to time, for prompts of up to `n_prompt` tokens. Close it before the weights."""

    def __init__(self, weights: Weights, tuning: RunConfig, n_prompt: int) -> None:
        self._n_vocab = weights.n_vocab
        self._batch = Batch(_BATCH)
        n_ctx = min(n_prompt + 2 * _DECODED, weights.n_ctx_train)
        self._context = Context(
            weights,
            ContextParams(
                n_ctx=n_ctx,
                n_batch=_BATCH,
                n_ubatch=tuning.n_ubatch,
                n_outputs=ROWS[-1],
                n_threads=tuning.n_threads,
                n_threads_batch=tuning.n_threads_batch,
                flash_attention=tuning.flash_attention,
            ),
        )
        self._room = n_ctx

    def close(self) -> None:
        """Free the context."""
        self._context.close()

    def set_threads(self, n: int) -> None:
        """Compute with `n` threads from now on."""
        self._context.set_threads(n, n)

    def warm_up(self) -> float:
        """Run two short prompts; returns the second one's tokens per second."""
        n = min(_WARM_UP, self._room)
        self._prefill(n)
        return n / self._prefill(n)

    def turn(self, n: int) -> tuple[float, float]:
        """Tokens per second of a prompt of `n` tokens, and of a short answer to it."""
        n = min(n, self._room - 1)
        prefill = n / self._prefill(n)
        steps = min(_DECODED, self._room - n)
        started = time.perf_counter()
        for position in range(n, n + steps):
            self._decode(position, 1)
        return prefill, steps / (time.perf_counter() - started)

    def rows(self, n: int) -> float:
        """Seconds for a batch of `n` tokens with logits for each; the best of three."""
        times = []
        for _ in range(_ROUNDS):
            self._context.remove(0, 0)
            started = time.perf_counter()
            self._decode(0, n, logits=n)
            times.append(time.perf_counter() - started)
        return min(times)

    def _prefill(self, n: int) -> float:
        self._context.remove(0, 0)
        started = time.perf_counter()
        for first in range(0, n, self._batch.capacity):
            self._decode(first, min(self._batch.capacity, n - first))
        return time.perf_counter() - started

    def _decode(self, first: int, n: int, logits: int = 1) -> None:
        tokens = [(position * 7919) % self._n_vocab for position in range(first, first + n)]
        self._batch.clear()
        self._batch.add(0, first, tokens, logits=logits)
        self._context.abort.clear()
        run_interruptibly(lambda: self._context.decode(self._batch), self._context.abort.set)


def longest(rate: float, seconds: float, n_max: int) -> int:
    """The longest of LENGTHS, up to `n_max`, that takes at most `seconds` at this rate."""
    fitting = (n for n in LENGTHS if n <= n_max and n <= rate * seconds)
    return next(fitting, LENGTHS[-1])
