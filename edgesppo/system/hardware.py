"""Owns what this machine gives this process: processors of each kind, and memory.

Affinity and a container's limits count. Standard library only; what a system does not tell is
left out, never guessed.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_PLATFORM = Path("/sys/devices/platform")
_PATIENCE = 5.0  # seconds for a small program of the system
_THROTTLES = {
    0x1: "the voltage is too low now",
    0x4: "it is throttled now",
    0x8: "it is too hot now",
    0x10000: "the voltage was too low",
    0x40000: "it was throttled",
    0x80000: "it was too hot",
}
_NO_LIMIT = 2**62
# A core with less than this share of the fastest one's capacity is one of the little ones.
_FAST = 0.8


def usable_cpus() -> int:
    """Processors this process may use: its affinity, cut by a container's quota. At least 1."""
    return max(1, min(len(_allowed()), _quota()))


def cores() -> int:
    """Cores this process may use: hyper-threads of one core count once."""
    return max(1, min(len({_core(cpu) for cpu in _allowed()}), usable_cpus()))


def thread_choices() -> list[int]:
    """Numbers of threads worth trying, the fewest first.

    One for each fast core, for each core, and for each hyper-thread: which is best depends on the
    model and on what is computed. All within what this process may use.
    """
    allowed = _allowed()
    firsts = {_core(cpu): cpu for cpu in sorted(allowed, reverse=True)}.values()
    capacities = {cpu: _capacity(cpu) for cpu in firsts}
    fastest = max(capacities.values(), default=1.0)
    fast = [cpu for cpu in firsts if capacities[cpu] >= _FAST * fastest]
    counts = {len(fast), len(firsts), len(allowed), *_apple_cores()}
    return sorted({max(1, min(count, usable_cpus())) for count in counts})


def name() -> str:
    """What tells this machine's speed from another's: processor, how many of it, memory."""
    return f"{_processor()} x{os.cpu_count()} {total_memory() // 2**30} GiB"


def available_memory() -> int | None:
    """Bytes this process may still take: what the system has, cut by any limit set on it."""
    found = (_system_memory(), _cgroup_memory(), _own_limit())
    return min((size for size in found if size is not None), default=None)


def _system_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        # macOS does not tell what is free; most of its memory can be had by dropping caches.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    except (AttributeError, OSError, ValueError):
        return None


def _cgroup_memory(root: Path = _CGROUP) -> int | None:
    """The limit of the cgroup (v2) less what is used; file pages can be dropped, so they count."""
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((root / "memory.current").read_text())
        for line in (root / "memory.stat").read_text().splitlines():
            if line.startswith("file "):
                used -= int(line.split()[1])
        return max(0, int(limit) - max(0, used))
    except (OSError, ValueError, IndexError):
        return None


def _own_limit() -> int | None:
    """What is left of the address space that the process may have (`ulimit -v`)."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        used = int(Path("/proc/self/statm").read_text().split()[0])
        return max(0, limit - used * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, AttributeError, OSError, ValueError, IndexError):
        return None


def memory_limit(root: Path = _CGROUP) -> int | None:
    """The limit of the container (cgroup v2) that this process is in; None without one."""
    try:
        return int((root / "memory.max").read_text())
    except (OSError, ValueError):
        return None


def features() -> set[str]:
    """What the processor can do, as the system calls it: "avx2", "asimddp"; empty if unknown."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def throttled(platform: Path | None = None) -> list[str]:
    """Why a Raspberry Pi is, or was, slower than it could be; empty elsewhere."""
    bits = _throttle_bits(platform or _PLATFORM)
    return [text for bit, text in _THROTTLES.items() if bits & bit]


def _throttle_bits(platform: Path) -> int:
    """As the kernel tells them ("50005"), else as the system's own program does."""
    try:
        for file in sorted(platform.glob("soc*/*firmware/get_throttled")):
            return int(file.read_text(), 16)
    except (OSError, ValueError):
        pass
    program = shutil.which("vcgencmd")
    if program is None:
        return 0
    try:
        done = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=_PATIENCE
        )
        return int(done.stdout.strip().removeprefix("throttled="), 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def peak_memory() -> int | None:
    """The most bytes that this process had resident so far; None where the system cannot tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory() -> int | None:
    """Bytes that this process has resident now; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _quota(root: Path | None = None) -> int:
    """Whole processors of the cgroup's quota ("max 100000" or "150000 100000"), rounded up."""
    try:
        quota, period = ((root or _CGROUP) / "cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return _NO_LIMIT


def _allowed() -> set[int]:
    """The numbers of the processors that the process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(cpu: int) -> str:
    """What the hyper-threads of one core have in common; without it, each is a core."""
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _capacity(cpu: int) -> float:
    """How fast a core is against the others: Arm's own figure, else its highest frequency."""
    for place in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        try:
            return float((_CPUS / f"cpu{cpu}" / place).read_text())
        except (OSError, ValueError):
            continue
    return 1.0


def _apple_cores() -> list[int]:
    """The performance cores of a Mac, and all of its cores."""
    keys = ("hw.perflevel0.physicalcpu", "hw.physicalcpu") if sys.platform == "darwin" else ()
    return [int(count) for count in map(_sysctl, keys) if count.isdecimal()]


def _processor() -> str:
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _sysctl(key: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def total_memory() -> int:
    """Bytes of memory that the machine has; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
