"""Time a model in one context, or in two: prompts, answers and batches of meaningless tokens."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo.engine.prefill_context import PIECE, copy_cells
from edgesppo.errors import NativeError
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.llama.weights import Weights
from edgesppo.planning.run_config import PREFILL_UBATCH, ROWS, ContextParams
from edgesppo.system.signals import run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgesppo.planning.run_config import RunConfig

LENGTHS = (2048, 1024, 512, 256, 128, 64, 32)  # of prompts that are timed, in tokens
_BATCH = 512
_WARM_UP = 32
_DECODED = 8  # tokens of an answer
_ROUNDS = 3


class Probe:
    """A context to time, for prompts of up to `n_prompt` tokens. Close it before the weights."""

    def __init__(self, weights: Weights, tuning: RunConfig, n_prompt: int, n_seqs: int = 1) -> None:
        self._n_vocab = weights.n_vocab
        self._batch = Batch(_BATCH)
        n_ctx = min(n_prompt + 2 * _DECODED, weights.n_ctx_train)
        self._context = Context(
            weights,
            ContextParams(
                n_ctx=n_ctx,
                n_batch=_BATCH,
                n_ubatch=tuning.n_ubatch,
                n_seqs=n_seqs,
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
        self.prefill(n)
        return n / self.prefill(n)

    def turn(self, n: int) -> tuple[float, float]:
        """Tokens per second of a prompt of `n` tokens, and of a short answer to it."""
        n = self.at_most(n)
        prefill = n / self.prefill(n)
        return prefill, self.decode(n)

    def decode(self, n: int) -> float:
        """Tokens per second of a short answer after `n` tokens."""
        steps = min(_DECODED, self._room - n)
        started = time.perf_counter()
        for position in range(n, n + steps):
            self._decode(position, 1)
        return steps / (time.perf_counter() - started)

    def at_most(self, n: int) -> int:
        """`n`, or the length of the longest prompt with room for an answer."""
        return min(n, self._room - 1)

    def take(self, other: Probe, n: int) -> None:
        """Hold the first `n` tokens of another one's prompt; each has a sequence for it free."""
        self._context.remove(0, 0)
        for first in range(0, n, PIECE):
            if not copy_cells(other._context, 0, self._context, 0, first, min(n, first + PIECE)):
                raise NativeError("llama.cpp did not take the cells of one context into another")

    def rows(self, n: int) -> float:
        """Seconds for a batch of `n` tokens with logits for each; the best of three."""
        times = []
        for _ in range(_ROUNDS):
            self._context.remove(0, 0)
            started = time.perf_counter()
            self._decode(0, n, logits=n)
            times.append(time.perf_counter() - started)
        return min(times)

    def prefill(self, n: int) -> float:
        """Seconds for a prompt of `n` tokens."""
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


class TwoContextsProbe:
    """Two contexts to time: prompts over plain weights, copied, and answers over repacked ones.

    `copy_s` is how many seconds of the last prompt copying took. Close it before the weights.
    """

    def __init__(self, plain: Weights, repacked: Weights, tuning: RunConfig, n_prompt: int) -> None:
        prompts = replace(tuning, n_ubatch=min(tuning.n_ubatch, PREFILL_UBATCH))
        self._prompts = Probe(plain, prompts, n_prompt, n_seqs=2)
        try:
            self._answers = Probe(repacked, tuning, n_prompt, n_seqs=2)
        except BaseException:
            self._prompts.close()
            raise
        self.copy_s = 0.0

    def close(self) -> None:
        """Free the contexts."""
        self._prompts.close()
        self._answers.close()

    def set_threads(self, n: int) -> None:
        """Compute with `n` threads from now on."""
        self._prompts.set_threads(n)
        self._answers.set_threads(n)

    def warm_up(self) -> float:
        """Run two short prompts in each; returns the last one's tokens per second."""
        self._answers.warm_up()
        return self._prompts.warm_up()

    def turn(self, n: int) -> tuple[float, float]:
        """Tokens per second of a prompt of `n` tokens with its copy, and of a short answer."""
        n = self._prompts.at_most(n)
        return n / self.prefill(n), self._answers.decode(n)

    def prefill(self, n: int) -> float:
        """Seconds for a prompt of `n` tokens, and for copying its cells."""
        seconds = self._prompts.prefill(n)
        started = time.perf_counter()
        self._answers.take(self._prompts, n)
        self.copy_s = time.perf_counter() - started
        return seconds + self.copy_s

    def rows(self, n: int) -> float:
        """Seconds for a batch of `n` tokens with logits for each; the best of three."""
        return self._answers.rows(n)


@contextlib.contextmanager
def open_probes(
    path: Path, ways: Sequence[RunConfig], n_prompt: int
) -> Iterator[list[Probe | TwoContextsProbe]]:
    """A probe for each way to run a file, all open at once; those that can share weights do."""
    weights: dict[bool, Weights] = {}
    with contextlib.ExitStack() as stack:

        def held(*, repack: bool) -> Weights:
            if repack not in weights:
                weights[repack] = Weights(path, repack=repack)
                stack.callback(weights[repack].close)
            return weights[repack]

        probes: list[Probe | TwoContextsProbe] = []
        for way in ways:
            own = held(repack=way.repack)
            if way.plain_from is None:
                probes.append(Probe(own, way, n_prompt))
            else:
                probes.append(TwoContextsProbe(held(repack=False), own, way, n_prompt))
            stack.callback(probes[-1].close)
        yield probes


def longest(rate: float, seconds: float, n_max: int) -> int:
    """The longest of LENGTHS, up to `n_max`, that takes at most `seconds` at this rate."""
    fitting = (n for n in LENGTHS if n <= n_max and n <= rate * seconds)
    return next(fitting, LENGTHS[-1])
