"""Owns what this machine can give, the processors that we may use, and what of it we took."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> int:
    """Processors this process may use: its affinity, cut by a container's quota. At least 1."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, _quota()))


def peak_memory() -> int | None:
    """The most bytes that this process had resident so far; None where the system cannot tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _quota() -> int:
    """Whole processors of the cgroup's quota ("max 100000" or "150000 100000"), rounded up."""
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return 2**31
