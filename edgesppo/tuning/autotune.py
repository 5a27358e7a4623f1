"""Find the settings that run a model fastest on this machine, by measuring them once.

The best settings differ between machines and models: llama.cpp's repacked weights make decode
faster and prefill slower on some processors, where a context for each may be best, flash attention
pays from some length on, and hyper-threads help or hurt. So a shortened prefill and decode of a
typical turn are timed with every setting worth trying, in turn; what is not faster than llama.cpp's
own choice beyond noise is not taken. The result is cached; see settings_cache.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo.planning.run_config import (
    ROWS,
    SMALL_UBATCH,
    TURNS,
    RunConfig,
    default_config,
    low_memory_config,
)
from edgesppo.system import hardware, load, notices
from edgesppo.tuning import settings_cache
from edgesppo.tuning.measure import LENGTHS, longest, open_probes
from edgesppo.tuning.rounds import (
    Measured,
    Rounds,
    is_faster,
    is_open,
    seconds_each,
    turn_seconds,
)
from edgesppo.tuning.second_context import MOST_STEPS, with_second_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary

# Seconds that timing a prompt may take; the prompt is shortened to fit.
_SHORT_TRY, _LONG_TRY = 2.5, 4.0
# Rounds in turn, and how many more where a gain is not clear.
_ROUNDS, _MORE_ROUNDS = 3, 2
# Smaller gains are noise whatever the rounds say.
_MARGIN = 0.02


def find_settings(
    summary: Summary, goal: str, on_progress: Callable[[float], None] | None = None
) -> RunConfig:
    """Measure the best settings for a model, and cache them; takes a minute or two.

    `goal` is one of run_config.TURNS. `on_progress` is called with the fraction that is done.
    Of what was measured beside busy programs a notice tells.
    """
    watch = load.LoadWatch()
    found = Search(summary.path, goal, on_progress or (lambda _: None)).best()
    watch.stop()
    share = load.most(watch.before, watch.during)
    disturbed = share > load.SPOILED
    settings_cache.store(summary, goal, found, disturbed=disturbed)
    if disturbed:
        notices.notify(
            f"the fastest settings were measured while other programs used {share:.0%} of the "
            "processors; they are used for now, and measured again when those programs are idle "
            "(--tune off measures nothing)"
        )
    return found


class Search:
    """A search for the best settings. The weights are in memory twice, plain and repacked."""

    def __init__(self, path: Path, goal: str, on_progress: Callable[[float], None]) -> None:
        self._path = path
        self._turn = TURNS[goal]
        self._frugal = goal == "memory"
        self._on_progress = on_progress
        self._done, self._tries = 0, 1

    def best(self) -> RunConfig:
        """Measure the weights repacked and plain, then tune the better way."""
        start = (
            low_memory_config() if self._frugal else replace(default_config(), flash_attention="on")
        )
        self._on_progress(0.0)
        # First what llama.cpp does by itself.
        ways = [start] if self._frugal else [start, replace(start, repack=False)]
        n_tries = len(ways) * len(hardware.thread_choices()) + (0 if self._frugal else 3)
        self._tries = n_tries * _ROUNDS + (0 if self._frugal else MOST_STEPS) + 1
        found = self._weights_and_threads(ways)
        winner = found[0].tuning if self._frugal else self._attention(self._best_way(*found))
        self._done = self._tries - 1  # a search for a second context may end early
        return self._rows(winner)

    def _best_way(self, repacked: Measured, plain: Measured) -> RunConfig:
        """The fastest of repacked weights, plain ones, and both, each in a context of its own."""
        both = with_second_context(
            self._path, repacked, plain, self._turn, margin=_MARGIN, on_step=self._step
        )
        return (both or self._fastest(repacked, [plain])).tuning

    def _weights_and_threads(self, ways: list[RunConfig]) -> list[Measured]:
        """The ways to hold the weights, each with its best numbers of threads."""
        choices = hardware.thread_choices()
        tries = [(way, threads) for way in ways for threads in choices]
        with open_probes(self._path, ways, LENGTHS[2]) as probes:
            slowest = min(probe.warm_up() for probe in probes)
            n = longest(slowest, _SHORT_TRY, self._turn[0])

            def measure(number: int) -> tuple[float, float]:
                way, threads = tries[number]
                probe = probes[ways.index(way)]
                probe.set_threads(threads)
                return probe.turn(n)

            found = self._in_turn(len(tries), measure)
            usual, *others = (self._best_threads(way, choices, tries, found) for way in ways)
            if any(self._is_undecided(usual, other) for other in others):
                self._more(found, measure)
                usual, *others = (self._best_threads(way, choices, tries, found) for way in ways)
        return [usual, *others]

    def _is_undecided(self, usual: Measured, other: Measured) -> bool:
        """Whether more rounds may find the other way faster, or worth a context for prompts."""
        usual_s, other_s = (seconds_each(way.rounds.decode) for way in (usual, other))
        return is_open(self._seconds(other), self._seconds(usual), _MARGIN) or is_open(
            usual_s, other_s, _MARGIN
        )

    def _best_threads(
        self,
        way: RunConfig,
        choices: list[int],
        tries: list[tuple[RunConfig, int]],
        found: list[Rounds],
    ) -> Measured:
        """A way with the best number of threads for prefill, and for decode."""
        rounds = {threads: found[tries.index((way, threads))] for threads in choices}
        usual = min(choices, key=lambda n: abs(n - way.n_threads))
        prefill = _best_choice({n: r.prefill for n, r in rounds.items()}, usual)
        decode = _best_choice({n: r.decode for n, r in rounds.items()}, usual)
        tuning = replace(way, n_threads=decode, n_threads_batch=prefill)
        return Measured(tuning, Rounds(rounds[prefill].prefill, rounds[decode].decode))

    def _attention(self, tuning: RunConfig) -> RunConfig:
        """The best of flash attention on or off, and of large or small micro-batches."""
        assert tuning.prefill_tps is not None
        n = longest(tuning.prefill_tps, _LONG_TRY, self._turn[0])
        ways = [
            tuning,
            replace(tuning, flash_attention="off"),
            replace(tuning, n_ubatch=SMALL_UBATCH),
        ]
        with open_probes(self._path, ways, n) as probes:
            for probe in probes:
                probe.warm_up()

            def measure(number: int) -> tuple[float, float]:
                return probes[number].turn(n)

            found = self._in_turn(len(ways), measure)
            usual, *others = map(Measured, ways, found)
            if any(
                is_open(self._seconds(other), self._seconds(usual), _MARGIN) for other in others
            ):
                self._more(found, measure)
        return self._fastest(usual, others).tuning

    def _in_turn(self, n_tries: int, measure: Callable[[int], tuple[float, float]]) -> list[Rounds]:
        """Measure all tries in rounds, every other one backwards."""
        found = [Rounds() for _ in range(n_tries)]
        for number in range(_ROUNDS):
            for which in range(n_tries) if number % 2 == 0 else reversed(range(n_tries)):
                found[which].add(measure(which))
                self._step()
        return found

    def _more(self, found: list[Rounds], measure: Callable[[int], tuple[float, float]]) -> None:
        """Measure further rounds."""
        for _ in range(_MORE_ROUNDS):
            for which, rounds in enumerate(found):
                rounds.add(measure(which))

    def _fastest(self, usual: Measured, others: list[Measured]) -> Measured:
        """The fastest of those that are faster than the usual one; that one if none is."""
        limit = self._seconds(usual)
        faster = [way for way in others if is_faster(self._seconds(way), limit, _MARGIN)]
        return min(faster, key=lambda way: statistics.median(self._seconds(way)), default=usual)

    def _seconds(self, way: Measured) -> list[float]:
        """The time of the whole turn in each round."""
        return turn_seconds(way.rounds.prefill, way.rounds.decode, self._turn)

    def _rows(self, tuning: RunConfig) -> RunConfig:
        """The settings with the measured costs of batches of ROWS rows, for drafts."""
        with open_probes(self._path, [tuning], LENGTHS[-1]) as (probe,):
            probe.warm_up()
            seconds = [probe.rows(n) for n in ROWS]
        self._step()
        return replace(tuning, row_costs=tuple(max(1.0, one / seconds[0]) for one in seconds))

    def _step(self) -> None:
        self._done += 1
        self._on_progress(self._done / self._tries)


def _best_choice(rates: dict[int, list[float]], usual: int) -> int:
    """The number of threads with the best rates; the usual one unless another is faster."""
    times = {n: seconds_each(found) for n, found in rates.items()}
    faster = [n for n in times if is_faster(times[n], times[usual], _MARGIN)]
    return min(faster, key=lambda n: statistics.median(times[n]), default=usual)
