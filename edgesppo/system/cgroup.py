"""The limits of this process's control group (cgroup v2): of a container, or of a systemd unit.

The limits of the groups above it hold as well. In a container its own group may be the root.
"""

from __future__ import annotations

import math
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")  # the path of the group below the root, as "0::/system.slice/..."


def available_memory() -> int | None:
    """The bytes that may still be allocated; None without a limit.

    Pages of files do not count as used, as they can be dropped, but those of shared memory and
    tmpfs do, which the kernel counts among them.
    """
    return min((left for left in map(_available, _folders()) if left is not None), default=None)


def memory_limit() -> int | None:
    """The least limit of memory in bytes; None without one."""
    limits = (_number(folder / "memory.max") for folder in _folders())
    return min((limit for limit in limits if limit is not None), default=None)


def cpu_quota() -> int | None:
    """The processors that may be used, rounded up; None without a quota."""
    return min((n for n in map(_quota, _folders()) if n is not None), default=None)


def _folders() -> list[Path]:
    """The folders of the group and of all above it; those without a file have no such limit."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = _ROOT / own.strip("/")
    return [folder, *(above for above in folder.parents if above.is_relative_to(_ROOT))]


def _available(folder: Path) -> int | None:
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    try:
        words = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        counts = {name: int(count) for name, count in words}
    except (OSError, ValueError):
        counts = {}
    droppable = counts.get("file", 0) - counts.get("shmem", 0)
    return max(0, limit - max(0, used - max(0, droppable)))


def _number(path: Path) -> int | None:
    """The number in a file; None for "max", and where there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _quota(folder: Path) -> int | None:
    """The quota in processors: "150000 100000" microseconds are two of them."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
