"""Whether tunings of one machine agree: the tuner is run again and again on the same file.

    python -m tests.benchmarks.tuner FILE.gguf [--rounds N] [--goal turn]

Prints what each tuning chose, how long it took, and how many chose the same weights and threads.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from edgesppo.planning.run_config import TURNS
from edgesppo.tuning.autotune import Search
from tests.benchmarks.record import Report, argument_parser


def main() -> None:
    """Tune, and say what was found."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--goal", choices=TURNS, default="turn")
    options = parser.parse_args()
    choices, seconds = list[tuple[object, ...]](), list[float]()
    for _ in range(options.rounds):
        started = time.perf_counter()
        found = Search(options.file, options.goal, lambda _: None).best()
        seconds.append(time.perf_counter() - started)
        choices.append((found.repack, found.n_threads, found.n_threads_batch))
        print(f"{found} in {seconds[-1]:.0f} s", flush=True)
    agreeing = max(choices.count(one) for one in choices)
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


if __name__ == "__main__":
    main()
