"""Benchmark a model on this machine: how fast it runs, what limits it, and what to change.

Every figure is measured in the run that reports it; only the settings come from `autotune`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.llama import build_info
from edgesppo.llama.library import LIBRARY_VERSION
from edgesppo.planning import memory_plan
from edgesppo.planning.run_config import ROWS, is_small
from edgesppo.system import hardware, load
from edgesppo.system.units import megabytes
from edgesppo.tuning.bandwidth import READ, bandwidth
from edgesppo.tuning.measure import LENGTHS, open_probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.run_config import RunConfig
    from edgesppo.tuning.measure import Probe, TwoContextsProbe

_SECONDS = 15.0  # for the longest prompt
_SHORT = 128
_GAIN = 1.05  # smaller gains are noise
_BOUND = 0.7  # share of the memory's speed from which decode counts as limited by it


@dataclass
class Report:
    """The figures: rates in tokens per second, sizes in bytes, bandwidth in bytes per second."""

    model: str
    bytes: int
    machine: str
    library: str
    tuning: RunConfig
    bandwidth: float
    compiler: str = ""  # of the library; empty if it does not tell
    small: bool = False  # the weights are too few to dominate the figures
    others_before: float | None = None  # share of the processors that other programs used
    others_during: float | None = None  # the same while it was measured
    load_s: float = 0.0
    resident: int | None = None
    prefill: dict[int, float] = field(default_factory=dict)  # prompt's tokens -> rate
    decode: dict[int, float] = field(default_factory=dict)  # tokens before the answer -> rate
    rows: dict[int, float] = field(default_factory=dict)  # of a step, empty context -> rate
    threads: dict[int, tuple[float, float]] = field(default_factory=dict)  # -> prefill, decode

    @property
    def bound(self) -> float:
        """The share of the memory bandwidth that decode reaches, as a token reads all weights."""
        return max(self.decode.values()) * self.bytes / self.bandwidth

    def advice(self) -> list[str]:
        """What would make the model faster, one line each."""
        share = load.most(self.others_before, self.others_during)
        if share <= load.SPOILED:
            return self._model_advice()
        spoiled = (
            f"other programs used {share:.0%} of the processors, so these figures are not this "
            "machine's: close them and measure again"
        )
        return [spoiled, *self._model_advice()]

    def _model_advice(self) -> list[str]:
        if self.small:
            return [
                f"with only {megabytes(self.bytes)} of weights, these figures show the overhead "
                "of a step and noise, and say nothing about larger models; benchmark the model "
                "that you mean to use",
                "a model this small runs on one thread: with more it is slower, above all beside "
                "other programs",
            ]
        found = []
        if self.bound > _BOUND:
            found.append(
                "decode is limited by memory bandwidth: only fewer bytes help, so use a smaller "
                "type (convert --type q4_k_s) or a smaller model"
            )
        else:
            found.append(
                f"decode uses {self.bound:.0%} of the memory bandwidth: the processor is the "
                "limit, so faster cores or a GPU would help, and faster memory would not"
            )
        found += self._threads_advice()
        n_best = max(self.rows, key=self.rows.__getitem__)
        if n_best > 1:
            gain = self.rows[n_best] / self.rows[1]
            found.append(
                f"{n_best} answers at once give up to {gain:.1f} times as many tokens per second "
                "as one, while their contexts are short"
            )
        return found

    def _threads_advice(self) -> list[str]:
        """Advice on numbers of threads that would be faster for prompts or for answers."""
        prompts = self._better(0, self.tuning.n_threads_batch)
        answers = self._better(1, self.tuning.n_threads)
        if prompts and prompts == answers:
            return [f"prompts and answers are faster with {answers} threads: --threads {answers}"]
        found = []
        if prompts:
            found.append(
                f"prompts are faster with {prompts} threads, answers are not: --threads {prompts} "
                "pays if prompts are long"
            )
        if answers:
            found.append(
                f"answers are faster with {answers} threads, prompts are not: --threads {answers} "
                "pays if answers are long"
            )
        return found

    def _better(self, half: int, now: int) -> int | None:
        """The best number of threads if it beats the current one, `now`, clearly; else None.

        `half` is 0 for prefill, 1 for decode.
        """
        rates = {n: pair[half] for n, pair in self.threads.items()}
        best = max(rates, key=rates.__getitem__)
        return best if best != now and rates[best] > _GAIN * rates.get(now, 0.0) else None


def measure(
    summary: Summary, tuning: RunConfig, on_progress: Callable[[float], None] | None = None
) -> Report:
    """Run the model for about a minute and return the figures.

    `on_progress` is called with the fraction that is done.
    """
    on_progress = on_progress or (lambda _: None)
    on_progress(0.0)
    watch = load.LoadWatch()
    found = Report(
        summary.path.name,
        summary.data_bytes,
        hardware.name(),
        LIBRARY_VERSION,
        tuning,
        bandwidth(hardware.cores(), READ),
        " ".join(filter(None, build_info.compiler())),
        is_small(summary),
    )
    started = time.perf_counter()
    n_max = min(LENGTHS[0], memory_plan.trained_context(summary) - 32)
    with open_probes(summary.path, [tuning], n_max) as (probe,):
        found.load_s = time.perf_counter() - started
        on_progress(0.1)
        _measure_lengths(found, probe, n_max, on_progress)
        found.rows = {n: n / probe.rows(n) for n in ROWS}
        on_progress(0.8)
        found.resident = hardware.resident_memory()
        _measure_threads(found, probe)
    watch.stop()
    found.others_before, found.others_during = watch.before, watch.during
    on_progress(1.0)
    return found


def _measure_lengths(
    found: Report, probe: Probe | TwoContextsProbe, n_max: int, on_progress: Callable[[float], None]
) -> None:
    """Time prompts of growing length, and a short answer to each."""
    rate = probe.warm_up()
    lengths = sorted(n for n in LENGTHS if n <= n_max and n <= rate * _SECONDS) or [LENGTHS[-1]]
    for done, n in enumerate(lengths, 1):
        found.prefill[n], found.decode[n] = probe.turn(n)
        on_progress(0.1 + 0.6 * done / len(lengths))


def _measure_threads(found: Report, probe: Probe | TwoContextsProbe) -> None:
    """Time a prompt and an answer with every number of threads worth trying."""
    used = (found.tuning.n_threads, found.tuning.n_threads_batch)
    counts = {*hardware.thread_choices(), max(1, hardware.cores() // 2), *used}
    for n in sorted(counts):
        probe.set_threads(n)
        found.threads[n] = probe.turn(min(_SHORT, max(found.prefill)))
