"""Owns what a model will need here, in bytes and threads, and whether this machine gives it.

Pure arithmetic on a file's own keys, made before anything is loaded. The formulas follow
llama.cpp's allocations for Gemma-2 and were held against what it reports ("KV buffer size",
"compute buffer size"): KV is exact, compute within a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.planning.run_config import CACHE_TYPES
from edgesppo.system.hardware import available_memory
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from edgesppo.gguf.gemma2 import Summary, TensorEntry
    from edgesppo.planning.run_config import RunConfig

CELL_PADDING = 256
# The types that llama.cpp keeps in an order of its own, on x86 with AVX2 and on Arm alike.
_REPACKED = ("Q4_K", "Q4_0", "IQ4_NL")
# What the interpreter, the library and the vocabulary take beside the model.
PROGRAM_BYTES = 150_000_000


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a model with these settings will take, its threads, and what is still free."""

    weights: int
    kv: int
    compute: int
    logits: int
    n_ctx: int
    window: int  # tokens that a layer with a sliding window holds at most
    cache_type: str
    n_threads: int
    n_threads_batch: int
    available: int | None
    draft: int = 0  # all of a second model that guesses

    @property
    def total(self) -> int:
        """All of it, the program included."""
        own = self.weights + self.kv + self.compute + self.logits
        return own + self.draft + PROGRAM_BYTES

    @property
    def fits(self) -> bool:
        """Whether it does; True where the system does not tell what is free."""
        return self.available is None or self.total <= self.available

    def explain(self) -> str:
        """One line: every part, the sum, what there is, and what to change if it is too much."""
        parts = {"weights": self.weights, "KV cache": self.kv, "compute": self.compute}
        if self.draft:
            parts["the draft model"] = self.draft
        parts["the program"] = PROGRAM_BYTES
        listed = ", ".join(f"{name} {megabytes(size, 0)}" for name, size in parts.items())
        line = f"needs {megabytes(self.total, 0)} of memory ({listed})"
        if self.available is None:
            return line
        line += f", {megabytes(self.available, 0)} are free for this process"
        return line if self.fits else f"{line}; {self.advice()}"

    def advice(self) -> str:
        """What to change, so that it fits."""
        lacking = self.total - (self.available or 0)
        if self.kv * (1 - CACHE_TYPES["q8_0"] / CACHE_TYPES[self.cache_type]) >= lacking:
            return "use cache_type q8_0 (--cache-type q8_0), or a smaller n_ctx (--n-ctx)"
        smaller = self.n_ctx - CELL_PADDING
        smaller -= smaller % CELL_PADDING
        while smaller > 0 and self.kv * (1 - self._share(smaller)) < lacking:
            smaller -= CELL_PADDING
        if smaller > 0:
            return f"use an n_ctx of {smaller} (--n-ctx {smaller}) or less"
        if self.draft >= lacking:
            return "do without the draft model (--draft)"
        return "end other programs, or use a smaller model or type"

    def _share(self, n_ctx: int) -> float:
        """Of the KV cache, what a smaller one takes: every other layer holds no more than a window.

        What the computation saves is not counted.
        """

        def cells(n: int) -> int:
            return _padded(n) + min(_padded(n), self.window)

        return cells(n_ctx) / cells(self.n_ctx)


def trained(summary: Summary) -> int:
    """The context that the file was trained for; a file without it is llama.cpp's to refuse."""
    value = summary.keys.get("gemma2.context_length")
    return value if isinstance(value, int) else CELL_PADDING


def plan_memory(
    summary: Summary,
    tuning: RunConfig,
    *,
    n_ctx: int,
    n_seqs: int,
    n_batch: int,
    cache_type: str,
) -> MemoryPlan:
    """The plan for a Gemma-2 file with these settings; sizes in tokens."""
    shape = _Shape(summary.keys)
    n_ubatch = min(n_batch, tuning.n_ubatch)
    full = _padded(n_ctx)
    window = _padded(min(full, shape.window * n_seqs + n_ubatch))
    cells = shape.full_layers * full + shape.window_layers * window
    compute = 4 * n_ubatch * (3 * shape.ffn + 4 * shape.hidden) + 2 * n_ubatch * (full + window)
    if tuning.flash_attention == "off":  # then there is a score for every head and pair of tokens
        compute += 4 * shape.heads * full * n_ubatch
    return MemoryPlan(
        weights=_resident(summary, repack=tuning.repack),
        kv=int(cells * shape.kv_row * CACHE_TYPES[cache_type]),
        compute=compute,
        logits=4 * n_seqs * shape.vocabulary,
        n_ctx=n_ctx,
        window=window,
        cache_type=cache_type,
        n_threads=tuning.n_threads,
        n_threads_batch=tuning.n_threads_batch,
        available=available_memory(),
    )


def _resident(summary: Summary, *, repack: bool) -> int:
    """Bytes of weights in memory. What is repacked is copied, and stays mapped as well wherever
    it lies between tensors that are used as they are.
    """
    packed = [_is_repacked(tensor) if repack else False for tensor in summary.tensors]
    if not any(packed):
        return summary.data_bytes
    sizes = [tensor.n_bytes for tensor in summary.tensors]
    used = [place for place, is_packed in enumerate(packed) if not is_packed]
    mapped = sum(sizes[used[0] : used[-1] + 1]) if used else 0
    return mapped + sum(size for size, is_packed in zip(sizes, packed, strict=True) if is_packed)


def _is_repacked(tensor: TensorEntry) -> bool:
    return tensor.type in _REPACKED and len(tensor.dims) == 2 and tensor.name.startswith("blk.")


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
        self.heads = number("attention.head_count")
        kv_heads = number("attention.head_count_kv")
        self.kv_row = kv_heads * (number("attention.key_length") + number("attention.value_length"))
        self.hidden = number("embedding_length")
        self.ffn = number("feed_forward_length")
        tokens = keys.get("tokenizer.ggml.tokens")
        self.vocabulary = tokens if isinstance(tokens, int) else 0


def _padded(cells: int) -> int:
    return -(-cells // CELL_PADDING) * CELL_PADDING
