"""The limits of this process's control groups (cgroup v2 or v1): of a container, or a systemd unit.

The limits of the groups above it hold as well. In a container its own group may be the root.

    v2    /proc/self/cgroup has 0::/GROUP          /sys/fs/cgroup/GROUP/memory.max, cpu.max
    v1    N:memory:/GROUP and N:cpu,cpuacct:/GROUP  /sys/fs/cgroup/memory/GROUP/..., cpu/GROUP/...

Above v2's memory.high a process is slowed down until it hardly moves, so it is a limit, too.
"""

from __future__ import annotations

import math
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNIFIED = ""  # what v2 has in place of a controller's name
_LIMITS = {_UNIFIED: ("memory.max", "memory.high"), "memory": ("memory.limit_in_bytes",)}
# The file of what is used; the names of files' and shared pages in memory.stat.
_FILES = {
    _UNIFIED: ("memory.current", "file", "shmem"),
    "memory": ("memory.usage_in_bytes", "total_cache", "total_shmem"),
}
_NO_LIMIT = 1 << 60  # bytes; v1 has a number in this range where there is none


def available_memory() -> int | None:
    """The bytes that may still be allocated; None without a limit.

    Pages of files do not count as used, as they can be dropped, but those of shared memory and
    tmpfs do, which the kernel counts among them.
    """
    found = (_available(folder, kind) for kind in _FILES for folder in _folders(kind))
    return min((left for left in found if left is not None), default=None)


def memory_limit() -> int | None:
    """The least limit of memory in bytes; None without one."""
    limits = (_limit(folder, kind) for kind in _FILES for folder in _folders(kind))
    return min((limit for limit in limits if limit is not None), default=None)


def cpu_quota() -> int | None:
    """The processors that may be used, rounded up; None without a quota."""
    found = [*map(_quota, _folders(_UNIFIED)), *map(_quota_v1, _folders("cpu"))]
    return min((n for n in found if n is not None), default=None)


def _folders(controller: str) -> list[Path]:
    """The folders of the group and of all above it; those without a file have no such limit."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        lines = []
    groups = [line.split(":", 2)[1:] for line in lines if line.count(":") > 1]
    own = next((path for names, path in groups if controller in names.split(",")), "/")
    root = _ROOT / controller
    folder = root / own.strip("/")
    return [folder, *(above for above in folder.parents if above.is_relative_to(root))]


def _limit(folder: Path, kind: str) -> int | None:
    found = (_number(folder / name) for name in _LIMITS[kind])
    return min((n for n in found if n is not None and n < _NO_LIMIT), default=None)


def _available(folder: Path, kind: str) -> int | None:
    used_file, files, shared = _FILES[kind]
    limit, used = _limit(folder, kind), _number(folder / used_file)
    if limit is None or used is None:
        return None
    try:
        words = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        counts = {name: int(count) for name, count in words}
    except (OSError, ValueError):
        counts = {}
    droppable = counts.get(files, 0) - counts.get(shared, 0)
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


def _quota_v1(folder: Path) -> int | None:
    quota, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return math.ceil(quota / period) if quota and period and quota > 0 else None
