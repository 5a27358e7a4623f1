"""Counts the resources of this process: open files, threads, memory, native handles."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

from edgesppo.llama.context import Context
from edgesppo.llama.sampler_chain import SamplerChain
from edgesppo.llama.weights import Weights

FILES, STATUS = Path("/proc/self/fd"), Path("/proc/self/status")
NATIVE = (Context, SamplerChain, Weights)


def open_files() -> int:
    """The number of open files; 0 where the system does not report it."""
    return sum(1 for _ in FILES.iterdir()) if FILES.is_dir() else 0


def threads() -> int:
    """The number of threads; native ones are included where the system reports them."""
    if not STATUS.exists():
        return threading.active_count()
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("Threads:")]
    return int(line.split()[1])


def resident() -> int:
    """Resident memory in bytes; 0 where the system does not report it."""
    if not STATUS.exists():
        return 0
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def native_handles() -> int:
    """The number of native handles that have not been freed."""
    gc.collect()
    alive = [
        thing for thing in gc.get_objects() if issubclass(type(thing), NATIVE)
    ]  # a proxy may be dead
    return sum(thing._finalizer.alive for thing in alive)
