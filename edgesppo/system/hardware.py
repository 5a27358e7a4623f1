"""What this machine offers this process: processors of each kind, and memory.

CPU affinity and the limits of control groups are respected. What a system does not report is left
out, never guessed; but a Mac's free memory is taken to be three quarters of all.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from edgesppo.system import cgroup

if sys.platform == "win32":
    from edgesppo.system import windows

_CPUS = Path("/sys/devices/system/cpu")
_PLATFORM = Path("/sys/devices/platform")
_TIMEOUT_S = 5.0  # for a small program of the system
_THROTTLES = {
    0x1: "the voltage is too low now",
    0x4: "it is throttled now",
    0x8: "it is too hot now",
    0x10000: "the voltage was too low",
    0x40000: "it was throttled",
    0x80000: "it was too hot",
}
# A core with less than this share of the fastest core's capacity counts as a slow one.
_FAST_SHARE = 0.8


def usable_cpus() -> int:
    """Logical processors this process may use: its affinity, within a container's quota; >= 1."""
    allowed, quota = len(allowed_cpus()), cgroup.cpu_quota()
    return max(1, allowed if quota is None else min(allowed, quota))


def cores() -> int:
    """Physical cores this process may use: hyper-threads of one core count once; >= 1."""
    return max(1, min(len({_core(cpu) for cpu in allowed_cpus()}), usable_cpus()))


def is_arm() -> bool:
    """Whether the processor is an Arm of 64 bits."""
    return platform.machine().lower() in ("aarch64", "arm64")


def thread_choices() -> list[int]:
    """The numbers of threads worth trying, in ascending order.

    One thread for each fast core, for each core, and for each hyper-thread, within what this
    process may use: which is best depends on the model and on what is computed.
    """
    allowed = allowed_cpus()
    first_threads = {_core(cpu): cpu for cpu in sorted(allowed, reverse=True)}.values()
    capacities = {cpu: _capacity(cpu) for cpu in first_threads}
    fastest = max(capacities.values(), default=1.0)
    fast = [cpu for cpu in first_threads if capacities[cpu] >= _FAST_SHARE * fastest]
    counts = {len(fast), len(first_threads), len(allowed), *_apple_cores()}
    return sorted({max(1, min(count, usable_cpus())) for count in counts})


def name() -> str:
    """A name for machines of this speed: the processor, the number of them, and the memory."""
    return f"{processor()} x{os.cpu_count()} {total_memory() // 2**30} GiB"


def available_memory() -> int | None:
    """Bytes this process may still allocate, within all limits set on it; None if unknown."""
    limits = (_system_memory(), cgroup.available_memory(), _address_space())
    return min((size for size in limits if size is not None), default=None)


def _system_memory() -> int | None:
    if sys.platform == "win32":
        memory = windows.system_memory()
        return memory.available if memory is not None else None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        # macOS does not report what is free; most of its memory can be freed by dropping caches.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    except (AttributeError, OSError, ValueError):
        return None


def _address_space() -> int | None:
    """Bytes left of the address space that the process may have (`ulimit -v`)."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        used = int(Path("/proc/self/statm").read_text().split()[0])
        return max(0, limit - used * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, AttributeError, OSError, ValueError, IndexError):
        return None


def features() -> set[str]:
    """The CPU's instruction set extensions by the system's names ("avx2"); empty if unknown."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def throttled() -> list[str]:
    """Why a Raspberry Pi is, or was, throttled; empty on other machines."""
    bits = _throttle_bits()
    return [text for bit, text in _THROTTLES.items() if bits & bit]


def _throttle_bits() -> int:
    """The throttle flags from the kernel ("50005"), else from vcgencmd; 0 if unknown."""
    try:
        for file in sorted(_PLATFORM.glob("soc*/*firmware/get_throttled")):
            return int(file.read_text(), 16)
    except (OSError, ValueError):
        pass
    program = shutil.which("vcgencmd")
    if program is None:
        return 0
    try:
        result = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=_TIMEOUT_S
        )
        return int(result.stdout.strip().removeprefix("throttled="), 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def peak_memory() -> int | None:
    """The peak of this process's resident memory in bytes; None if unknown."""
    if sys.platform == "win32":
        memory = windows.process_memory()
        return memory.peak if memory is not None else None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory() -> int | None:
    """This process's resident memory in bytes; None if unknown."""
    if sys.platform == "win32":
        memory = windows.process_memory()
        return memory.resident if memory is not None else None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def allowed_cpus() -> set[int]:
    """The numbers of the logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(cpu: int) -> str:
    """A name that the hyper-threads of one core share; each its own where the system has none."""
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _capacity(cpu: int) -> float:
    """A core's speed relative to the others: Arm's own figure, else its highest frequency."""
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        try:
            return float((_CPUS / f"cpu{cpu}" / file).read_text())
        except (OSError, ValueError):
            continue
    return 1.0


def _apple_cores() -> list[int]:
    """The numbers of performance cores and of all cores of a Mac; empty elsewhere."""
    keys = ("hw.perflevel0.physicalcpu", "hw.physicalcpu") if sys.platform == "darwin" else ()
    return [int(count) for count in map(_sysctl, keys) if count.isdecimal()]


def processor() -> str:
    """The name of the processor as the system gives it, else the kind of machine."""
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
        result = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.strip()


def total_memory() -> int:
    """The machine's memory in bytes; 0 if unknown."""
    if sys.platform == "win32":
        memory = windows.system_memory()
        return memory.total if memory is not None else 0
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
