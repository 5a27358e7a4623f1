"""How much of this machine's processors other programs use, as a share from 0 to 1.

Linux counts what the processors do in /proc/stat: of those that this process may run on, what is
neither idle nor its own is used by others. Under a container's quota, what is left of the quota
counts. Elsewhere the average of the last minute is taken (`os.getloadavg`), where there is one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from edgesppo.system import hardware

_STAT = Path("/proc/stat")
_SECONDS = 0.2  # to look at a machine that nothing else is known of
# user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in the first two.
_FIELDS = 8
_IDLE = (3, 4)
# Shares from which others slow down what runs here, and from which a measurement is spoiled.
BUSY = 0.25
SPOILED = 0.15


@dataclass(frozen=True)
class _Look:
    """The counters at one moment: seconds since some start, and of the processors ticks."""

    at: float
    own: float  # processor time that this process has used, in seconds
    total: int
    idle: int
    n_cpus: int  # processors that were counted; 0 if the system does not count them


class LoadMeter:
    """Measures the share of the processors that others use, from one call to the next."""

    def __init__(self) -> None:
        self._last = _look()

    def others(self) -> float | None:
        """The share since the last call, or since the meter was made.

        None if the system does not tell, or if that was too short a time.
        """
        before, now = self._last, _look()
        seconds = now.at - before.at
        if seconds <= 0:
            return None
        self._last = now
        own = (now.own - before.own) / seconds
        ticks = now.total - before.total
        if not now.n_cpus or now.n_cpus != before.n_cpus:
            return _from_average(own)
        if ticks <= 0:
            return None
        free = now.n_cpus * (now.idle - before.idle) / ticks + own
        return _share(1 - free / hardware.usable_cpus())


class LoadWatch:
    """What others use before something is measured (`before`), and until `stop` (`during`)."""

    def __init__(self) -> None:
        self.before = others()
        self.during: float | None = None
        self._meter = LoadMeter()

    def stop(self) -> None:
        """End the measurement."""
        self.during = self._meter.others()


def others() -> float | None:
    """The share of the processors that others use now, measured for a moment; None if unknown."""
    meter = LoadMeter()
    time.sleep(_SECONDS)
    return meter.others()


def is_busy() -> bool:
    """Whether others use so much now that a measurement would be spoiled."""
    return most(others()) > SPOILED


def most(*shares: float | None) -> float:
    """The greatest of the known shares; 0 if none is known."""
    return max((share for share in shares if share is not None), default=0.0)


def _look() -> _Look:
    total, idle, n_cpus = _counters()
    return _Look(time.monotonic(), time.process_time(), total, idle, n_cpus)


def _counters() -> tuple[int, int, int]:
    """Ticks in all, idle ones, and the number of processors that both are the sums of."""
    allowed = hardware.allowed_cpus()
    total = idle = n_cpus = 0
    try:
        for line in _STAT.read_text().splitlines():
            name, *fields = line.split()
            number = name.removeprefix("cpu")
            if name == number or not number.isdecimal() or int(number) not in allowed:
                continue
            ticks = [int(field) for field in fields[:_FIELDS]]
            total += sum(ticks)
            idle += sum(ticks[field] for field in _IDLE)
            n_cpus += 1
    except (OSError, ValueError, IndexError):
        return 0, 0, 0
    return total, idle, n_cpus


def _from_average(own: float) -> float | None:
    """The share by the average number of running threads, of which `own` are this process's."""
    try:
        running = os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
    return _share((running - own) / hardware.usable_cpus())


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
