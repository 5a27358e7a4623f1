"""Measure the preflight check of a GGUF file, against loading it.

    python -m tests.benchmarks.preflight FILE

Rounds alternate; prints the medians and their ratio. The promise is a ratio of at most 0.3 for a
file with a full vocabulary that is in the page cache. The load is the fastest possible: weights
mapped, not repacked.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.gguf import gemma2
from edgesppo.llama.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
PROMISED = 0.3


def main(arguments: list[str]) -> int:
    """Measure and print; return 1 if the promise is broken, else 0."""
    path = Path(arguments[0])
    checks, loads = list[float](), list[float]()
    for _ in range(ROUNDS + 1):  # the first round is warm-up
        checks.append(_seconds(lambda: gemma2.load_summary(path)))
        loads.append(_seconds(lambda: Weights(path, repack=False).close()))
    check, load = (statistics.median(times[1:]) for times in (checks, loads))
    print(f"{path.name}: {path.stat().st_size / 1e6:,.0f} MB")
    print(f"preflight {check * 1e3:7.1f} ms ({min(checks) * 1e3:.1f} at best)")
    print(f"load      {load * 1e3:7.1f} ms ({min(loads) * 1e3:.1f} at best)")
    print(f"ratio     {check / load:7.2f}, promised: at most {PROMISED}")
    return int(check / load > PROMISED)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
