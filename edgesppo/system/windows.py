"""What Windows tells of memory, by two calls of its kernel32."""

from __future__ import annotations

import ctypes
from typing import Any


class SystemMemory(ctypes.Structure):
    """MEMORYSTATUSEX: the machine's memory in bytes."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "available")),
        *((name, ctypes.c_uint64) for name in ("total_page_file", "available_page_file")),
        *((name, ctypes.c_uint64) for name in ("total_virtual", "available_virtual", "extended")),
    )
    total: int
    available: int


class ProcessMemory(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS: this process's memory in bytes."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("faults", ctypes.c_uint32),
        *((name, ctypes.c_size_t) for name in ("peak", "resident")),
        *((f"quota_{n}", ctypes.c_size_t) for n in range(4)),
        *((name, ctypes.c_size_t) for name in ("page_file", "peak_page_file")),
    )
    length: int
    peak: int
    resident: int


def system_memory() -> SystemMemory | None:
    """The machine's memory; None where Windows does not say."""
    status = SystemMemory(ctypes.sizeof(SystemMemory))
    return status if _kernel().GlobalMemoryStatusEx(ctypes.byref(status)) else None


def process_memory() -> ProcessMemory | None:
    """This process's memory; None where Windows does not say."""
    counters = ProcessMemory(ctypes.sizeof(ProcessMemory))
    this_process = ctypes.c_void_p(-1)
    given = (this_process, ctypes.byref(counters), counters.length)
    return counters if _kernel().K32GetProcessMemoryInfo(*given) else None


def _kernel() -> Any:
    return ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
