"""Measure how fast this machine's memory is read: what limits answers, whatever the model."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from edgesppo.system.hardware import available_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READ = 512 << 20  # bytes that all threads read together: more than most caches hold
_SHARE = 4  # of the available memory, at most one part in so many is used


def bandwidth(threads: int, n_bytes: int = READ) -> float:
    """Bytes per second that `threads` threads together read from memory; the best of three."""
    import numpy as np

    n_bytes = min(n_bytes, (available_memory() or _SHARE * n_bytes) // _SHARE)
    arrays = [np.ones(max(1, n_bytes // threads // 8), np.int64) for _ in range(threads)]
    return sum(array.nbytes for array in arrays) / seconds_together([one.sum for one in arrays])


def seconds_together(works: Sequence[Callable[[], object]]) -> float:
    """Seconds until all are done that are begun at once, each in a thread; the best of three."""
    seconds = []
    for _ in range(3):
        workers = [threading.Thread(target=work) for work in works]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
