"""Find the settings that run a model fastest on this machine, by measuring them once.

The best settings differ between machines and models: llama.cpp's repacked weights make decode
faster and prefill slower on some processors, flash attention pays from some length on, and
hyper-threads help or hurt. So a shortened prefill and decode of a typical turn are timed with
every setting worth trying, and the one with the least time for the whole turn wins. The result is
cached; see settings_cache.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo.llama.weights import Weights
from edgesppo.planning.run_config import (
    ROWS,
    SMALL_UBATCH,
    TURNS,
    RunConfig,
    default_config,
    low_memory_config,
)
from edgesppo.system import hardware
from edgesppo.tuning import settings_cache
from edgesppo.tuning.measure import LENGTHS, Probe, longest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary

# Seconds that timing a prompt may take; the prompt is shortened to fit.
_SHORT_TRY, _LONG_TRY = 4.0, 6.0
# Smaller gains are noise. Repacking must gain more, because weights that are not repacked load
# faster, and the system can drop their pages when memory is short.
_MARGIN = 0.02
_REPACK_MARGIN = 0.05


def find_settings(
    summary: Summary, goal: str, on_progress: Callable[[float], None] | None = None
) -> RunConfig:
    """Measure the best settings for a model, and cache them; takes up to a minute.

    `goal` is one of run_config.TURNS. `on_progress` is called with the fraction that is done.
    """
    found = Search(summary.path, goal, on_progress or (lambda _: None)).best()
    settings_cache.store(summary, goal, found)
    return found


class Search:
    """A search for the best settings. Only one copy of the weights is in memory at a time."""

    def __init__(self, path: Path, goal: str, on_progress: Callable[[float], None]) -> None:
        self._path = path
        self._n_prompt, self._n_answer = TURNS[goal]
        self._frugal = goal == "memory"
        self._on_progress = on_progress
        self._done, self._tries = 0, 1

    def best(self) -> RunConfig:
        """Measure the weights plain and repacked, then tune the better one."""
        start = (
            low_memory_config() if self._frugal else replace(default_config(), flash_attention="on")
        )
        self._on_progress(0.0)
        ways = [False] if self._frugal else [False, True]
        self._tries = len(ways) * len(hardware.thread_choices()) + (1 if self._frugal else 4)
        plain, *repacked = [self._threads(replace(start, repack=repack)) for repack in ways]
        winner = next((way for way in repacked if self._pays(way, plain, _REPACK_MARGIN)), plain)
        return self._rows(winner if self._frugal else self._attention(winner))

    def _threads(self, tuning: RunConfig) -> RunConfig:
        """The best number of threads for prefill, and the best for decode."""
        prefill: dict[int, float] = {}
        decode: dict[int, float] = {}
        with self._probe(tuning, LENGTHS[2]) as probe:
            n = longest(probe.warm_up(), _SHORT_TRY, self._n_prompt)
            for threads in hardware.thread_choices():
                probe.set_threads(threads)
                # The better of two, as other programs can only slow it down.
                turns = [probe.turn(n) for _ in range(2)]
                prefill[threads] = max(rate for rate, _ in turns)
                decode[threads] = max(rate for _, rate in turns)
                self._step()
        n_prefill = max(prefill, key=prefill.__getitem__)
        n_decode = max(decode, key=decode.__getitem__)
        return replace(
            tuning,
            n_threads=n_decode,
            n_threads_batch=n_prefill,
            prefill_tps=prefill[n_prefill],
            decode_tps=decode[n_decode],
        )

    def _attention(self, tuning: RunConfig) -> RunConfig:
        """The best of flash attention on or off, and of large or small micro-batches."""
        assert tuning.prefill_tps is not None
        n = longest(tuning.prefill_tps, _LONG_TRY, self._n_prompt)
        ways = [
            tuning,
            replace(tuning, flash_attention="off"),
            replace(tuning, n_ubatch=SMALL_UBATCH),
        ]
        found = []
        for way in ways:
            with self._probe(way, n) as probe:
                probe.warm_up()
                prefill, decode = probe.turn(n)
            found.append(replace(way, prefill_tps=prefill, decode_tps=decode))
            self._step()
        first, *others = found
        best = min(others, key=self._seconds)
        return best if self._pays(best, first, _MARGIN) else first

    def _rows(self, tuning: RunConfig) -> RunConfig:
        """The settings with the measured costs of batches of ROWS rows, for drafts."""
        with self._probe(tuning, LENGTHS[-1]) as probe:
            probe.warm_up()
            seconds = [probe.rows(n) for n in ROWS]
        self._step()
        return replace(tuning, row_costs=tuple(max(1.0, one / seconds[0]) for one in seconds))

    @contextlib.contextmanager
    def _probe(self, tuning: RunConfig, n_prompt: int) -> Iterator[Probe]:
        weights = Weights(self._path, repack=tuning.repack)
        try:
            probe = Probe(weights, tuning, n_prompt)
            try:
                yield probe
            finally:
                probe.close()
        finally:
            weights.close()

    def _pays(self, way: RunConfig, other: RunConfig, margin: float) -> bool:
        return self._seconds(way) < self._seconds(other) * (1 - margin)

    def _seconds(self, tuning: RunConfig) -> float:
        """The time of the whole turn."""
        assert tuning.prefill_tps is not None
        assert tuning.decode_tps is not None
        return self._n_prompt / tuning.prefill_tps + self._n_answer / tuning.decode_tps

    def _step(self) -> None:
        self._done += 1
        self._on_progress(self._done / self._tries)
