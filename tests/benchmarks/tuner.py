"""Whether tunings of one machine agree: the tuner is run again and again on the same file.

    python -m tests.benchmarks.tuner FILE.gguf [--rounds N] [--goal turn]

Prints what each tuning chose, how long it took, how many chose the same weights (repacked, plain,
or both) and threads, and what a turn takes with the usual choice, beside llama.cpp's default.
"""

from __future__ import annotations

import collections
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.planning.run_config import TURNS, default_config
from edgesppo.tuning.autotune import Search
from edgesppo.tuning.measure import longest, open_probes
from edgesppo.tuning.rounds import Rounds, turn_seconds
from tests.benchmarks.record import Report, argument_parser

if TYPE_CHECKING:
    import argparse

    from edgesppo.planning.run_config import RunConfig

_PROMPT_S = 4.0  # that a prompt may take
# What a turn may take of the default's time: more is not noise.
SLOWER = 1.03


def main() -> None:
    """Tune, and say what was found."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--goal", choices=TURNS, default="turn")
    options = parser.parse_args()
    choices, seconds = list[tuple[Any, ...]](), list[float]()
    tunings: dict[tuple[Any, ...], RunConfig] = {}
    for _ in range(options.rounds):
        started = time.perf_counter()
        found = Search(options.file, options.goal, lambda _: None).best()
        seconds.append(time.perf_counter() - started)
        two = found.plain_from is not None
        choices.append((found.repack, two, found.n_threads, found.n_threads_batch))
        tunings[choices[-1]] = found
        print(f"{found} in {seconds[-1]:.0f} s", flush=True)
    (usual, agreeing), *_ = collections.Counter(choices).most_common()
    report, note = Report(options), f"each took {statistics.median(seconds):.0f} s"
    found_alike = ([float(agreeing)], "all", [float(options.rounds)])
    report.compare(
        "tunings that agree",
        "",
        *found_alike,
        more_is_better=True,
        goal=1.0,
        rival=False,
        note=note,
    )
    compare_with_default(report, options, tunings[usual])


def compare_with_default(report: Report, options: argparse.Namespace, found: RunConfig) -> None:
    """Time a turn with the settings that were found, and with llama.cpp's own, in turn."""
    turn = TURNS[options.goal]
    usual = replace(default_config(), flash_attention="on")
    with open_probes(options.file, [found, usual], turn[0]) as probes:
        n = longest(min(probe.warm_up() for probe in probes), _PROMPT_S, turn[0])
        rates = [Rounds(), Rounds()]
        for number in range(options.rounds):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                rates[which].add(probes[which].turn(n))
    ours, default = (turn_seconds(one.prefill, one.decode, turn) for one in rates)
    report.compare(
        f"a turn of {turn[0]} in, {turn[1]} out, by the rates of {n} in",
        "s",
        ours,
        "llama.cpp's default settings",
        default,
        goal=SLOWER,
        rival=False,
    )


if __name__ == "__main__":
    main()
