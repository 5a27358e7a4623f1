"""Owns a user's own figures: how fast a model runs here, what limits it, and what to change.

Everything is measured in the run that reports it, but the settings, which `tune` remembers. Knows
nothing of terminals.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.llama.library import LIBRARY_VERSION
from edgesppo.llama.weights import Weights
from edgesppo.planning.run_config import ROWS, is_small
from edgesppo.system import hardware
from edgesppo.system.units import megabytes
from edgesppo.tuning.measure import LENGTHS, Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.run_config import RunConfig

_READ = 512 << 20  # bytes that all threads read together: beyond most caches
_SECONDS = 15.0  # for the longest prompt
_SHORT = 128
_GAIN = 1.05  # less is noise
_BOUND = 0.7  # of the memory's speed: more is hardly to be had


@dataclass
class Report:
    """What was found; rates in tokens per second, sizes in bytes, bandwidth in bytes a second."""

    model: str
    bytes: int
    machine: str
    library: str
    tuning: RunConfig
    bandwidth: float
    small: bool = False  # so few weights that the figures tell of everything but them
    load_s: float = 0.0
    resident: int | None = None
    prefill: dict[int, float] = field(default_factory=dict)  # tokens of the prompt -> rate
    decode: dict[int, float] = field(default_factory=dict)  # tokens before -> rate
    rows: dict[int, float] = field(default_factory=dict)  # sequences or guesses at once -> rate
    threads: dict[int, tuple[float, float]] = field(default_factory=dict)  # -> prefill, decode

    @property
    def bound(self) -> float:
        """The share of the memory's speed that decode reaches: every token reads all weights."""
        return max(self.decode.values()) * self.bytes / self.bandwidth

    def advice(self) -> list[str]:
        """What to change to be faster, as far as these figures tell."""
        if self.small:
            return [
                f"with {megabytes(self.bytes)} of weights, most of this is what every step costs"
                " with any model, and noise: nothing to conclude from it; measure the model that "
                "you mean to use"
            ]
        found = []
        if self.bound > _BOUND:
            found.append(
                "decode is bound by the memory's speed: only fewer bytes help, "
                "a smaller type (convert --type q4_k_s) or a smaller model"
            )
        else:
            found.append(
                f"decode uses {self.bound:.0%} of the memory's speed: the processor is the limit, "
                "so faster cores or a GPU would help, faster memory would not"
            )
        found += self._threads_advice()
        many = max(self.rows, key=self.rows.__getitem__)
        if many > 1:
            gain = self.rows[many] / self.rows[1]
            found.append(f"{many} answers at once give {gain:.1f} times the tokens of one")
        return found

    def _threads_advice(self) -> list[str]:
        """Numbers of threads that would be faster, for prompts and for answers apart."""
        prompts = self._better(0, self.tuning.n_threads_batch)
        answers = self._better(1, self.tuning.n_threads)
        if prompts and prompts == answers:
            return [f"prompts and answers are faster with {answers} threads: --threads {answers}"]
        found = []
        if prompts:
            found.append(
                f"prompts are faster with {prompts} threads, answers are not: --threads {prompts} "
                "pays where prompts are long"
            )
        if answers:
            found.append(
                f"answers are faster with {answers} threads, prompts are not: --threads {answers} "
                "pays where answers are long"
            )
        return found

    def _better(self, half: int, now: int) -> int | None:
        """The number of threads with the best rate, where that gains; 0: prefill, 1: decode."""
        rates = {n: pair[half] for n, pair in self.threads.items()}
        best = max(rates, key=rates.__getitem__)
        return best if best != now and rates[best] > _GAIN * rates.get(now, 0.0) else None


def measure(
    summary: Summary, tuning: RunConfig, report: Callable[[float], None] | None = None
) -> Report:
    """Run the model for a minute or so. `report` hears which part is done."""
    tell = report or (lambda _: None)
    tell(0.0)
    found = Report(
        summary.path.name,
        summary.data_bytes,
        hardware.name(),
        LIBRARY_VERSION,
        tuning,
        bandwidth(hardware.cores()),
        is_small(summary),
    )
    started = time.perf_counter()
    weights = Weights(summary.path, repack=tuning.repack)
    try:
        most = min(LENGTHS[0], weights.n_ctx_train - 32)
        probe = Probe(weights, tuning, most)
        try:
            found.load_s = time.perf_counter() - started
            tell(0.1)
            _lengths(found, probe, most, tell)
            found.rows = {n: n / probe.rows(n) for n in ROWS}
            tell(0.8)
            found.resident = hardware.resident_memory()
            _threads(found, probe)
        finally:
            probe.close()
    finally:
        weights.close()
    tell(1.0)
    return found


def _lengths(found: Report, probe: Probe, most: int, tell: Callable[[float], None]) -> None:
    """Prompts of growing length, as long as one is over soon; and an answer behind each."""
    rate = probe.warm_up()
    lengths = sorted(n for n in LENGTHS if n <= most and n <= rate * _SECONDS) or [LENGTHS[-1]]
    for place, n in enumerate(lengths, 1):
        found.prefill[n], found.decode[n] = probe.turn(n)
        tell(0.1 + 0.6 * place / len(lengths))


def _threads(found: Report, probe: Probe) -> None:
    counts = {*hardware.thread_choices(), max(1, hardware.cores() // 2)}
    for n in sorted(counts):
        probe.set_threads(n)
        found.threads[n] = probe.turn(min(_SHORT, max(found.prefill)))


def bandwidth(threads: int) -> float:
    """Bytes a second that so many threads read from memory together; the best of three."""
    import numpy as np

    arrays = [np.ones(_READ // threads // 8, np.int64) for _ in range(threads)]
    seconds = []
    for _ in range(3):
        workers = [threading.Thread(target=array.sum) for array in arrays]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds.append(time.perf_counter() - started)
    return sum(array.nbytes for array in arrays) / min(seconds)
