"""How a model is run: threads, cache types, micro-batches, and the goals that a user can choose.

The defaults of all entry points are here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from edgesppo.system import hardware, validate

if TYPE_CHECKING:
    from edgesppo.gguf.gemma2 import Summary

Goal = Literal["turn", "prefill", "decode", "memory", "off"]
CacheType = Literal["f16", "f32", "q8_0"]
Gpu: TypeAlias = Literal["auto", "off"] | int
# Goal -> (prompt tokens, answer tokens) of the turn that it makes as fast as possible.
TURNS = {"turn": (512, 128), "prefill": (2048, 32), "decode": (128, 512), "memory": (512, 128)}
OFF = "off"
GOALS = (*TURNS, OFF)
# Bytes per element of the KV cache; q8_0 stores 32 elements in 34 bytes.
CACHE_TYPES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
FLASH_ATTENTION = ("auto", "off", "on")
DEFAULT_BATCH = 512
# Answers that are generated at once: at most, and where many are wanted and nothing else is asked
# for: the kernels of most processors work on groups of four rows.
MOST_SEQS, DEFAULT_PARALLEL = 64, 4
# The most tokens of a second context, which computes long prompts; and the most that it computes at
# once: with more, plain weights are no faster, and its buffers are larger.
PREFILL_N_CTX, PREFILL_UBATCH = 4096, 256
_ALL_LAYERS = -1
_MAX_LAYERS = 10_000
SMALL_UBATCH, LARGE_UBATCH = 128, 512
# Rows of a batch: one for the last token, the others for drafts; kernels work on groups of four.
ROWS = (1, 4, 8, 16)
# The most tokens of a text that a draft model reads in one step.
DRAFT_SLICE = 64
MAX_DRAFT = ROWS[-1] - 1
# The time of a batch of ROWS rows relative to one row, where it was not measured: figures of a 2B
# model on two AVX-512 cores.
DEFAULT_ROW_COSTS = (1.0, 2.4, 4.4, 7.5)
# Bytes of weights; a smaller model is fast in any configuration of one thread.
_WORTH_TUNING = 64 << 20


@dataclass(frozen=True)
class RunConfig:
    """How to run a model; the rates are in tokens per second, None if they were not measured.

    With `plain_from`, so many new tokens of a prompt or more are computed by a second context over
    the weights as they are in the file; the first one decodes with repacked ones.
    """

    n_threads: int
    n_threads_batch: int
    repack: bool = True
    flash_attention: str = "auto"
    n_ubatch: int = LARGE_UBATCH
    prefill_tps: float | None = None
    decode_tps: float | None = None
    # The time of a batch of ROWS rows relative to one row.
    row_costs: tuple[float, ...] = DEFAULT_ROW_COSTS
    plain_from: int | None = None


@dataclass(frozen=True)
class ContextParams:
    """The settings of a context. Sizes are in tokens; `n_outputs` in rows of logits per decode."""

    n_ctx: int
    n_batch: int = 512
    n_ubatch: int = 512
    n_seqs: int = 1
    n_outputs: int = 1
    n_threads: int = 1
    n_threads_batch: int = 1
    cache_type: str = "f16"
    flash_attention: str = "auto"


def default_threads(summary: Summary | None = None) -> int:
    """The number of threads without measurement: one per core, and one alone for a small model.

    A small model's steps are so short that threads mostly wait for each other, and on a busy
    machine for each other's turn on a processor: there one thread is tens of times as fast.
    """
    return 1 if summary is not None and is_small(summary) else hardware.cores()


def default_config(summary: Summary | None = None) -> RunConfig:
    """The configuration without measurement: `default_threads`, else llama.cpp's defaults."""
    threads = default_threads(summary)
    return RunConfig(threads, threads)


def low_memory_config(summary: Summary | None = None) -> RunConfig:
    """The configuration that takes the least memory, without a measurement."""
    start = default_config(summary)
    return replace(start, repack=False, flash_attention="on", n_ubatch=SMALL_UBATCH)


def one_context(tuning: RunConfig) -> RunConfig:
    """The settings without a second context; their prefill was not measured."""
    if tuning.plain_from is None:
        return tuning
    return replace(tuning, plain_from=None, prefill_tps=None)


def check_goal(goal: str) -> None:
    """Raise UsageError for an unknown goal."""
    validate.choice("tune", goal, GOALS)


def is_small(summary: Summary) -> bool:
    """Whether the model is too small for tuning: reading its weights is not what takes time."""
    return summary.data_bytes < _WORTH_TUNING


def gpu_layers(gpu: str | int, *, can_offload: bool) -> int:
    """The number of layers to offload for `gpu`; -1 means all, 0 if there is no usable GPU.

    Raises UsageError for any other value than "auto", "off" or a number of layers.
    """
    if isinstance(gpu, int) and not isinstance(gpu, bool) and 0 <= gpu <= _MAX_LAYERS:
        return gpu if can_offload else 0
    if gpu == "off":
        return 0
    if gpu == "auto":
        return _ALL_LAYERS if can_offload else 0
    raise validate.invalid_value("gpu", gpu, "'auto', 'off' or a number of layers")
