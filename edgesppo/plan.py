"""Owns what a model will need here, in bytes and threads, and whether this machine gives it.

Pure arithmetic on a file's own keys, made before anything is loaded. The formulas follow
llama.cpp's allocations for Gemma-2 and were held against what it reports ("KV buffer size",
"compute buffer size"): KV is exact, compute within a tenth.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesppo.preflight import Summary

_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**62
# Bytes of a KV element; q8_0 keeps 32 elements in 34 bytes.
CACHE_TYPES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
_CELL_PADDING = 256
# What the interpreter, the library and the vocabulary take beside the model.
_PROGRAM_BYTES = 150_000_000


@dataclass(frozen=True)
class Plan:
    """Bytes that a model with these settings will take, and what this process may still use."""

    weights: int
    kv: int
    compute: int
    logits: int
    n_ctx: int
    cache_type: str
    available: int | None

    @property
    def total(self) -> int:
        """All of it, the program included."""
        return self.weights + self.kv + self.compute + self.logits + _PROGRAM_BYTES

    @property
    def fits(self) -> bool:
        """Whether it does; True where the system does not tell what is free."""
        return self.available is None or self.total <= self.available

    def explain(self) -> str:
        """One line: every part, the sum, what there is, and what to change if it is too much."""
        parts = {"weights": self.weights, "KV cache": self.kv, "compute": self.compute}
        listed = ", ".join(f"{name} {_mb(size)}" for name, size in parts.items())
        line = f"needs {_mb(self.total)} of memory ({listed})"
        if self.available is None:
            return line
        line += f", {_mb(self.available)} are free for this process"
        return line if self.fits else f"{line}; {self._advice()}"

    def _advice(self) -> str:
        lacking = self.total - (self.available or 0)
        if self.cache_type != "q8_0" and self.kv * 0.45 > lacking:
            return "use cache_type q8_0, or a smaller n_ctx"
        if self.kv > lacking:
            smaller = int(self.n_ctx * (1 - lacking / self.kv) * 0.9) // 256 * 256
            return f"use an n_ctx of {max(256, smaller)} or less"
        return "close other programs, or use a smaller model or type"


def plan(
    summary: Summary,
    *,
    n_ctx: int,
    n_seqs: int,
    n_batch: int,
    cache_type: str,
) -> Plan:
    """The plan for a Gemma-2 file with these settings; sizes in tokens."""
    shape = _Shape(summary.keys)
    n_ubatch = min(n_batch, 512)
    full = _padded(n_ctx)
    window = _padded(min(full, shape.window * n_seqs + n_ubatch))
    cells = shape.full_layers * full + shape.window_layers * window
    masks = 2 * n_ubatch * (full + window)
    return Plan(
        weights=summary.data_bytes,
        kv=int(cells * shape.kv_row * CACHE_TYPES[cache_type]),
        compute=4 * n_ubatch * (3 * shape.ffn + 4 * shape.hidden) + masks,
        logits=4 * n_seqs * shape.vocabulary,
        n_ctx=n_ctx,
        cache_type=cache_type,
        available=available_memory(),
    )


class _Shape:
    """The sizes that matter here, from a file's keys; what is no number counts as nothing."""

    def __init__(self, keys: dict[str, Any]) -> None:
        def number(name: str) -> int:
            value = keys.get(f"gemma2.{name}")
            return value if isinstance(value, int) and value >= 0 else 0

        layers = number("block_count")
        self.window_layers = (layers + 1) // 2  # every other layer, from the first
        self.full_layers = layers // 2
        self.window = number("attention.sliding_window") or 4096
        heads = number("attention.head_count_kv")
        self.kv_row = heads * (number("attention.key_length") + number("attention.value_length"))
        self.hidden = number("embedding_length")
        self.ffn = number("feed_forward_length")
        tokens = keys.get("tokenizer.ggml.tokens")
        self.vocabulary = tokens if isinstance(tokens, int) else 0


def _padded(cells: int) -> int:
    return -(-cells // _CELL_PADDING) * _CELL_PADDING


def available_memory() -> int | None:
    """Bytes this process may still take: what the system has, cut by a container's limit."""
    known = [size for size in (_system_memory(), _cgroup_memory()) if size is not None]
    return min(known, default=None)


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


def _quota(root: Path | None = None) -> int:
    """Whole processors of the cgroup's quota ("max 100000" or "150000 100000"), rounded up."""
    try:
        quota, period = ((root or _CGROUP) / "cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return _NO_LIMIT


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
