"""Owns which settings run a model fastest on this machine: measured once, then remembered.

What is best differs from machine to machine and from model to model: llama.cpp's repacked weights
make decode faster and prefill slower on some processors, flash attention pays from some length
on, hyper-threads help or hurt. So both halves of a usual turn are run in short, with each setting
that is worth trying, and the least time for the whole turn wins. The outcome is kept for this
machine, this build and this file:

    HOME/tuning/HASH.json       the settings, and the rates that were measured

Knows nothing of chats, nor of who waits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgesppo.llama.library import LIBRARY_VERSION, system_info
from edgesppo.llama.weights import Weights
from edgesppo.planning.run_config import (
    LARGE_UBATCH,
    OFF,
    ROWS,
    SMALL_UBATCH,
    TURNS,
    RunConfig,
    default_config,
    is_small,
    low_memory_config,
)
from edgesppo.system import hardware
from edgesppo.system.fs import FileSystem, atomic_write
from edgesppo.system.paths import cache_dir
from edgesppo.tuning.measure import LENGTHS, Probe, longest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary

# Seconds that one try of a prompt may take; it is shortened to fit.
_SHORT_TRY, _LONG_TRY = 4.0, 6.0
# What is to be had by less is noise. Weights as they are in the file load faster, and the system
# can drop them when memory is short: repacking must give more.
_MARGIN = 0.02
_REPACK_MARGIN = 0.05


def remembered(summary: Summary, goal: str) -> RunConfig | None:
    """The best settings for a file as far as no measurement is needed; None where one is."""
    if goal == OFF or is_small(summary):
        return default_config()
    return _recall(_place(summary, goal))


def measured(
    summary: Summary, goal: str, report: Callable[[float], None] | None = None
) -> RunConfig:
    """The best settings for a file, found now. `report` hears which part of the search is done."""
    found = Measurement(summary.path, goal, report or (lambda _: None)).best()
    _remember(_place(summary, goal), found)
    return found


class Measurement:
    """One search for the best settings. The file's weights are in memory once at a time."""

    def __init__(self, path: Path, goal: str, report: Callable[[float], None]) -> None:
        self._path = path
        self._prompt, self._answer = TURNS[goal]
        self._frugal = goal == "memory"
        self._report = report
        self._done, self._tries = 0, 1

    def best(self) -> RunConfig:
        """Try the ways to hold the weights, then the ways to compute with the better one."""
        start = (
            low_memory_config() if self._frugal else replace(default_config(), flash_attention="on")
        )
        self._report(0.0)
        ways = [False] if self._frugal else [False, True]
        self._tries = len(ways) * len(hardware.thread_choices()) + (1 if self._frugal else 4)
        plain, *repacked = [self._threads(replace(start, repack=repack)) for repack in ways]
        winner = next((way for way in repacked if self._pays(way, plain, _REPACK_MARGIN)), plain)
        return self._rows(winner if self._frugal else self._attention(winner))

    def _threads(self, tuning: RunConfig) -> RunConfig:
        """The best numbers of threads, for prefill and for decode apart."""
        prefill: dict[int, float] = {}
        decode: dict[int, float] = {}
        with self._probe(tuning, LENGTHS[2]) as probe:
            n = longest(probe.warm_up(), _SHORT_TRY, self._prompt)
            for threads in hardware.thread_choices():
                probe.set_threads(threads)
                # The better of two: whatever else runs on the machine only ever slows it down.
                turns = [probe.turn(n) for _ in range(2)]
                prefill[threads] = max(rate for rate, _ in turns)
                decode[threads] = max(rate for _, rate in turns)
                self._step()
        batch, one = max(prefill, key=prefill.__getitem__), max(decode, key=decode.__getitem__)
        return replace(
            tuning,
            n_threads=one,
            n_threads_batch=batch,
            prefill_tps=prefill[batch],
            decode_tps=decode[one],
        )

    def _attention(self, tuning: RunConfig) -> RunConfig:
        """With or without flash attention, in large or small steps: at the prompt's own length."""
        assert tuning.prefill_tps is not None
        n = longest(tuning.prefill_tps, _LONG_TRY, self._prompt)
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
        """What guesses will cost."""
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
        """What the whole turn takes."""
        assert tuning.prefill_tps is not None
        assert tuning.decode_tps is not None
        return self._prompt / tuning.prefill_tps + self._answer / tuning.decode_tps

    def _step(self) -> None:
        self._done += 1
        self._report(self._done / self._tries)


def _place(summary: Summary, goal: str) -> Path:
    """Where the settings are kept; models of the same shapes and types share them."""
    model = [(tensor.name, tensor.type, tensor.dims) for tensor in summary.tensors]
    here = [hardware.name(), hardware.thread_choices(), LIBRARY_VERSION, system_info()]
    digest = hashlib.sha256(json.dumps([here, model, goal]).encode()).hexdigest()
    return cache_dir() / "tuning" / f"{digest[:32]}.json"


def _recall(place: Path) -> RunConfig | None:
    """What was measured before; None where nothing was, or what is there makes no sense."""
    try:
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        costs = tuple(found.pop("row_costs"))
        tuning = RunConfig(**found, row_costs=costs)
        threads = (tuning.n_threads, tuning.n_threads_batch)
        whole = all(type(n) is int and 0 < n <= 1024 for n in threads)
        rates = (tuning.prefill_tps, tuning.decode_tps)
        whole = whole and all(type(rate) is float and rate > 0 for rate in rates)
        fits = whole and tuning.flash_attention in ("on", "off") and type(tuning.repack) is bool
        sound = len(costs) == len(ROWS) and all(1 <= cost < 1000 for cost in costs)
        return (
            tuning if fits and sound and tuning.n_ubatch in (SMALL_UBATCH, LARGE_UBATCH) else None
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _remember(place: Path, tuning: RunConfig) -> None:
    """Keep it; where that cannot be done it is measured anew next time."""
    text = json.dumps(asdict(tuning), indent=1) + "\n"
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, text.encode(), files=FileSystem())
