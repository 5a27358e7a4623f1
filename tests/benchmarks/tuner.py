"""Whether tunings of one machine agree: the tuner is run again and again on the same file.

    python -m tests.benchmarks.tuner FILE.gguf [--rounds N] [--goal turn]

Prints what each tuning chose, how long it took, and whether all chose the same weights and threads.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from edgesppo.planning.run_config import TURNS
from edgesppo.tuning.autotune import Search


def main() -> None:
    """Tune, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--goal", choices=TURNS, default="turn")
    options = parser.parse_args()
    choices = set()
    for _ in range(options.rounds):
        started = time.perf_counter()
        found = Search(options.file, options.goal, lambda _: None).best()
        seconds = time.perf_counter() - started
        choices.add((found.repack, found.n_threads, found.n_threads_batch))
        print(f"{found} in {seconds:.0f} s")
    print("they agree" if len(choices) == 1 else f"{len(choices)} different choices: {choices}")


if __name__ == "__main__":
    main()
