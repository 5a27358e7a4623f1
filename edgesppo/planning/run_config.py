"""How a model is run: threads, kinds of cache, micro-batches, and what each goal of a user means.

Plain values and their defaults, which everything above reads from here: nothing is measured and
no library is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesppo.system import hardware, validate

if TYPE_CHECKING:
    from edgesppo.gguf.gemma2 import Summary

# Tokens in, tokens out: the turn that each goal makes as fast as it can be.
TURNS = {"turn": (512, 128), "prefill": (2048, 32), "decode": (128, 512), "memory": (512, 128)}
OFF = "off"
CHOICES = (*TURNS, OFF)
# Bytes of an element of the KV cache; q8_0 keeps 32 elements in 34 bytes.
CACHE_TYPES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
DEFAULT_BATCH = 512
SMALL_UBATCH, LARGE_UBATCH = 128, 512
# Rows of a batch, one of them the token that is certain; kernels work in groups of four rows.
ROWS = (1, 4, 8, 16)
MAX_DRAFT = ROWS[-1] - 1
# What batches of so many rows cost against one row, where nothing was measured: a 2B model on two
# AVX-512 cores.
USUAL_COSTS = (1.0, 2.4, 4.4, 7.5)
# Bytes of weights; a smaller model answers at once, however it is run.
_WORTHWHILE = 64 << 20


@dataclass(frozen=True)
class RunConfig:
    """How to run a model; the rates, in tokens per second, are None where none were measured."""

    n_threads: int
    n_threads_batch: int
    repack: bool = True
    flash_attention: str = "auto"
    n_ubatch: int = LARGE_UBATCH
    prefill_tps: float | None = None
    decode_tps: float | None = None
    # What batches of ROWS rows cost against one row.
    row_costs: tuple[float, ...] = USUAL_COSTS


def untuned() -> RunConfig:
    """What is taken without a measurement: a thread for every core, llama.cpp's own rest."""
    threads = hardware.cores()
    return RunConfig(threads, threads)


def frugal() -> RunConfig:
    """What takes the least memory; no measurement either."""
    return replace(untuned(), repack=False, flash_attention="on", n_ubatch=SMALL_UBATCH)


def check_goal(goal: str) -> None:
    """Raises UsageError for what is no choice."""
    validate.choice("tune", goal, CHOICES)


def is_small(summary: Summary) -> bool:
    """Whether a step takes so little that its cost is not the weights': nothing pays there."""
    return summary.data_bytes < _WORTHWHILE
