"""How a model is run: threads, cache types, micro-batches, and the goals that a user can choose.

The defaults of all entry points are here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesppo.system import hardware, validate

if TYPE_CHECKING:
    from edgesppo.gguf.gemma2 import Summary

# Goal -> (prompt tokens, answer tokens) of the turn that it makes as fast as possible.
TURNS = {"turn": (512, 128), "prefill": (2048, 32), "decode": (128, 512), "memory": (512, 128)}
OFF = "off"
GOALS = (*TURNS, OFF)
# Bytes per element of the KV cache; q8_0 stores 32 elements in 34 bytes.
CACHE_TYPES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
DEFAULT_BATCH = 512
SMALL_UBATCH, LARGE_UBATCH = 128, 512
# Rows of a batch: one for the last token, the others for drafts; kernels work on groups of four.
ROWS = (1, 4, 8, 16)
MAX_DRAFT = ROWS[-1] - 1
# The time of a batch of ROWS rows relative to one row, where it was not measured: figures of a 2B
# model on two AVX-512 cores.
DEFAULT_ROW_COSTS = (1.0, 2.4, 4.4, 7.5)
# Bytes of weights; a smaller model is fast in any configuration.
_WORTH_TUNING = 64 << 20


@dataclass(frozen=True)
class RunConfig:
    """How to run a model; the rates are in tokens per second, None if they were not measured."""

    n_threads: int
    n_threads_batch: int
    repack: bool = True
    flash_attention: str = "auto"
    n_ubatch: int = LARGE_UBATCH
    prefill_tps: float | None = None
    decode_tps: float | None = None
    # The time of a batch of ROWS rows relative to one row.
    row_costs: tuple[float, ...] = DEFAULT_ROW_COSTS


def default_config() -> RunConfig:
    """The configuration without measurement: a thread per core, else llama.cpp's defaults."""
    threads = hardware.cores()
    return RunConfig(threads, threads)


def low_memory_config() -> RunConfig:
    """The configuration that takes the least memory, without a measurement."""
    return replace(default_config(), repack=False, flash_attention="on", n_ubatch=SMALL_UBATCH)


def check_goal(goal: str) -> None:
    """Raise UsageError for an unknown goal."""
    validate.choice("tune", goal, GOALS)


def is_small(summary: Summary) -> bool:
    """Whether the model is too small for tuning: reading its weights is not what takes time."""
    return summary.data_bytes < _WORTH_TUNING
