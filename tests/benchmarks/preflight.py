"""Measure the preflight check of a GGUF file, against loading it.

    python -m tests.benchmarks.preflight FILE

The load is the fastest possible: weights mapped, not repacked, of a file in the page cache.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.gguf import gemma2
from edgesppo.llama.weights import Weights
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable

PROMISED = 0.3  # of a file with a full vocabulary


def main() -> None:
    """Measure both in turn."""
    parser = argument_parser(__doc__, rounds=7)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    path = options.file
    measures: dict[str, Measure] = {
        "check": lambda: _timed(lambda: gemma2.load_summary(path)),
        "load": lambda: _timed(lambda: Weights(path, repack=False).close()),
    }
    in_turn(measures, 1)  # warm-up
    found = in_turn(measures, options.rounds)
    Report(options).compare(
        *("preflight check of a file", "ms", found["check"]["ms"]),
        *("loading it", found["load"]["ms"]),
        goal=PROMISED,
        rival=False,
    )


def _timed(work: Callable[[], object]) -> dict[str, float]:
    started = time.perf_counter()
    work()
    return {"ms": (time.perf_counter() - started) * 1e3}


if __name__ == "__main__":
    main()
