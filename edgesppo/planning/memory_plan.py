"""Estimate how much memory a model will take on this machine, and whether that is available.

Arithmetic on the keys of the file, before anything is loaded. The formulas follow llama.cpp's
allocations for Gemma-2 and were compared with what it reports ("KV buffer size", "compute buffer
size"): KV is exact, compute within a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgesppo.planning.run_config import CACHE_TYPES, DRAFT_SLICE
from edgesppo.system.hardware import available_memory
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from edgesppo.gguf.gemma2 import Summary, TensorEntry
    from edgesppo.planning.run_config import RunConfig

CELL_PADDING = 256
# The types that llama.cpp repacks into a layout of its own, on x86 with AVX2 and on Arm.
_REPACKED = ("Q4_K", "Q4_0", "IQ4_NL")
# Of the interpreter, the library and the vocabulary.
PROGRAM_BYTES = 150_000_000


@dataclass(frozen=True)
class MemoryPlan:
    """The bytes that a model with these settings will take, its threads, and the bytes available.

    `available` is None where the system does not report it.
    """

    weights: int
    kv: int
    compute: int
    logits: int
    n_ctx: int
    window: int  # the most tokens that a sliding window layer holds
    cache_type: str
    n_threads: int
    n_threads_batch: int
    available: int | None
    draft: int = 0  # all memory of the draft model

    @property
    def total(self) -> int:
        """The sum of all parts in bytes, including the program."""
        own = self.weights + self.kv + self.compute + self.logits
        return own + self.draft + PROGRAM_BYTES

    @property
    def fits(self) -> bool:
        """Whether the total fits; True where the available memory is unknown."""
        return self.available is None or self.total <= self.available

    def explain(self) -> str:
        """One line: the sum, its parts, the available memory, and what to change if needed."""
        parts = {"weights": self.weights, "KV cache": self.kv, "compute": self.compute}
        if self.draft:
            parts["the draft model"] = self.draft
        parts["the program"] = PROGRAM_BYTES
        listed = ", ".join(f"{name} {megabytes(size, 0)}" for name, size in parts.items())
        line = f"needs {megabytes(self.total, 0)} of memory ({listed})"
        if self.available is None:
            return line
        line += f", {megabytes(self.available, 0)} are available to this process"
        return line if self.fits else f"{line}; {self.advice()}"

    def advice(self) -> str:
        """What to change to make it fit."""
        missing = self.total - (self.available or 0)
        if self.kv * (1 - CACHE_TYPES["q8_0"] / CACHE_TYPES[self.cache_type]) >= missing:
            return "use cache_type q8_0 (--cache-type q8_0), or a smaller n_ctx (--n-ctx)"
        smaller = self.n_ctx - CELL_PADDING
        smaller -= smaller % CELL_PADDING
        while smaller > 0 and self.kv * (1 - self._share(smaller)) < missing:
            smaller -= CELL_PADDING
        if smaller > 0:
            return f"use an n_ctx of {smaller} (--n-ctx {smaller}) or less"
        if self.draft >= missing:
            return "run without the draft model (--draft)"
        return "close other programs, or use a smaller model or quantisation type"

    def _share(self, n_ctx: int) -> float:
        """The size of the KV cache with `n_ctx`, as a share of its size now.

        Every other layer holds no more than its window. Smaller compute buffers are not counted.
        """

        def cells(n: int) -> int:
            return _padded(n) + min(_padded(n), self.window)

        return cells(n_ctx) / cells(self.n_ctx)


def trained_context(summary: Summary) -> int:
    """The context in tokens that the model was trained for; llama.cpp refuses a file without it."""
    value = summary.keys.get("gemma2.context_length")
    return value if isinstance(value, int) else CELL_PADDING


def plan_memory(
    summary: Summary,
    config: RunConfig,
    *,
    n_ctx: int,
    n_seqs: int,
    n_batch: int,
    cache_type: str,
) -> MemoryPlan:
    """The plan for a Gemma-2 file; `n_ctx` and `n_batch` are in tokens, `n_seqs` shares `n_ctx`."""
    shape = _Shape(summary.keys)
    n_ubatch = min(n_batch, config.n_ubatch)
    full = _padded(n_ctx)
    window = _padded(min(full, shape.window * n_seqs + n_ubatch))
    cells = shape.full_layers * full + shape.window_layers * window
    compute = 4 * n_ubatch * (3 * shape.ffn + 4 * shape.hidden) + 2 * n_ubatch * (full + window)
    if config.flash_attention == "off":  # then a score for every head and pair of tokens is stored
        compute += 4 * shape.heads * full * n_ubatch
    return MemoryPlan(
        weights=_resident(summary, repack=config.repack),
        kv=int(cells * shape.kv_row * CACHE_TYPES[cache_type]),
        compute=compute,
        logits=4 * n_seqs * shape.vocabulary,
        n_ctx=n_ctx,
        window=window,
        cache_type=cache_type,
        n_threads=config.n_threads,
        n_threads_batch=config.n_threads_batch,
        available=available_memory(),
    )


def plan_draft_memory(summary: Summary, tuning: RunConfig, n_ctx: int) -> MemoryPlan:
    """The memory of a draft model for a target with `n_ctx` tokens and these settings."""
    own = replace(tuning, flash_attention="auto", n_ubatch=DRAFT_SLICE)
    n_ctx = min(n_ctx, trained_context(summary))
    return plan_memory(summary, own, n_ctx=n_ctx, n_seqs=1, n_batch=DRAFT_SLICE, cache_type="f16")


def _resident(summary: Summary, *, repack: bool) -> int:
    """Bytes of weights in memory.

    Repacked tensors are copied, and those that lie between tensors that are used from the mapped
    file stay resident there, too.
    """
    repacked = [_is_repacked(tensor) if repack else False for tensor in summary.tensors]
    if not any(repacked):
        return summary.data_bytes
    sizes = [tensor.n_bytes for tensor in summary.tensors]
    used = [n for n, is_packed in enumerate(repacked) if not is_packed]
    mapped = sum(sizes[used[0] : used[-1] + 1]) if used else 0
    return mapped + sum(size for size, is_packed in zip(sizes, repacked, strict=True) if is_packed)


def _is_repacked(tensor: TensorEntry) -> bool:
    return tensor.type in _REPACKED and len(tensor.dims) == 2 and tensor.name.startswith("blk.")


class _Shape:
    """The sizes that matter here, from the keys of a file; 0 for a missing or invalid one."""

    def __init__(self, keys: dict[str, Any]) -> None:
        def number(name: str) -> int:
            value = keys.get(f"gemma2.{name}")
            return value if isinstance(value, int) and value >= 0 else 0

        layers = number("block_count")
        self.window_layers = (layers + 1) // 2  # every other layer, from the first
        self.full_layers = layers // 2
        self.window = number("attention.sliding_window") or 4096
        self.heads = number("attention.head_count")
        kv_heads = number("attention.head_count_kv")
        self.kv_row = kv_heads * (number("attention.key_length") + number("attention.value_length"))
        self.hidden = number("embedding_length")
        self.ffn = number("feed_forward_length")
        tokens = keys.get("tokenizer.ggml.tokens")
        self.vocabulary = tokens if isinstance(tokens, int) else 0


def _padded(cells: int) -> int:
    return -(-cells // CELL_PADDING) * CELL_PADDING
