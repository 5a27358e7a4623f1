"""Estimate how much memory a model will take on this machine, and whether that is available.

Arithmetic on the keys of the file, before anything is loaded. The formulas follow llama.cpp's
allocations for Gemma-2 and were compared on x86 with what it reports ("KV buffer size", "compute
buffer size", "CPU_REPACK model buffer size"): KV and repacked weights are exact, compute within a
tenth. What Arm's processors repack is read in its sources. The memory of a GPU is not planned.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgesppo.planning.run_config import CACHE_TYPES, DRAFT_SLICE, PREFILL_N_CTX, PREFILL_UBATCH
from edgesppo.system import hardware
from edgesppo.system.hardware import available_memory
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from edgesppo.gguf.gemma2 import Summary, TensorEntry
    from edgesppo.planning.run_config import RunConfig

CELL_PADDING = 256
# The types that llama.cpp repacks into a layout of its own, by a feature of the processor.
_REPACKED = {
    "avx2": ("Q4_0", "Q4_K", "IQ4_NL"),
    "avx512f": ("Q2_K",),
    "asimddp": ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL"),
}
_EMBEDDING = "token_embd.weight"
# Of the interpreter, the library and the vocabulary.
PROGRAM_BYTES = 150_000_000
# Of an empty entry of the vocabulary, which a second context has instead of a token's text.
_ENTRY_BYTES = 48


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
    prefill: int = 0  # all memory of a second context, for long prompts
    on_gpu: bool = False  # layers lie in a GPU's own memory, and are not counted

    @property
    def total(self) -> int:
        """The sum of all parts in bytes, including the program."""
        own = self.weights + self.kv + self.compute + self.logits
        return own + self.draft + self.prefill + PROGRAM_BYTES

    @property
    def fits(self) -> bool:
        """Whether the total fits; True where the available memory is unknown."""
        return self.available is None or self.total <= self.available

    def explain(self) -> str:
        """One line: the sum, its parts, the available memory, and what to change if needed."""
        parts = {"weights": self.weights, "KV cache": self.kv, "compute": self.compute}
        parts["logits"] = self.logits
        if self.prefill:
            parts["a second context for long prompts"] = self.prefill
        if self.draft:
            parts["the draft model"] = self.draft
        parts["the program"] = PROGRAM_BYTES
        listed = ", ".join(f"{name} {megabytes(size, 0)}" for name, size in parts.items())
        line = f"needs {megabytes(self.total, 0)} of memory ({listed})"
        if self.on_gpu:
            line += ", without what lies in the GPU's own"
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
    n_outputs: int = 1,
    gpu_layers: int = 0,
) -> MemoryPlan:
    """The plan for a Gemma-2 file; `n_ctx` and `n_batch` are in tokens, `n_seqs` shares `n_ctx`.

    llama.cpp keeps `n_outputs` rows of logits, and at least one for each sequence. `gpu_layers` are
    on a GPU, in its own memory but on a Mac; -1 means all.
    """
    on_gpu = gpu_layers != 0 and sys.platform != "darwin"
    if on_gpu:
        summary = _without_gpu_layers(summary, gpu_layers)
    prefill = 0
    if config.plain_from is not None:
        n_seqs += 1  # kept free, for what goes from one context to the other
        prefill = plan_prefill_memory(
            summary, config, n_ctx=n_ctx, n_batch=n_batch, cache_type=cache_type
        )
    shape = _Shape(summary.keys)
    n_ubatch = min(n_batch, config.n_ubatch)
    full, window = shape.cells(n_ctx, n_seqs, n_ubatch)
    logits = 4 * max(n_seqs, n_outputs) * shape.vocabulary
    # The logits are computed where the layers' values were, and copied to where they are kept.
    compute = max(logits, shape.compute_bytes(full, window, n_ubatch, config.flash_attention))
    return MemoryPlan(
        # Beside a GPU nothing is repacked: its buffers for transfers, which go first, are mapped.
        weights=_resident(summary, repack=config.repack and not on_gpu),
        kv=shape.kv_bytes(full, window, cache_type),
        compute=compute,
        logits=logits,
        n_ctx=n_ctx,
        window=window,
        cache_type=cache_type,
        n_threads=config.n_threads,
        n_threads_batch=config.n_threads_batch,
        available=available_memory(),
        prefill=prefill,
        on_gpu=on_gpu,
    )


def plan_prefill_memory(
    summary: Summary, config: RunConfig, *, n_ctx: int, n_batch: int, cache_type: str
) -> int:
    """The most bytes of a second context beside one of `n_ctx` tokens, over the file's weights.

    They include those of the tensors that are not needed there where they are repacked.
    """
    shape = _Shape(summary.keys)
    n_ubatch = min(n_batch, config.n_ubatch, PREFILL_UBATCH)
    full, window = shape.cells(min(n_ctx, PREFILL_N_CTX), 2, n_ubatch)
    return (
        summary.data_bytes
        - _mapped_beside_repacked(summary)
        + shape.kv_bytes(full, window, cache_type)
        + shape.compute_bytes(full, window, n_ubatch, config.flash_attention)
        + _ENTRY_BYTES * shape.vocabulary
    )


def plan_draft_memory(
    summary: Summary, tuning: RunConfig, n_ctx: int, gpu_layers: int
) -> MemoryPlan:
    """The memory of a draft model for a target with `n_ctx` tokens and these settings."""
    own = replace(tuning, flash_attention="auto", n_ubatch=DRAFT_SLICE, plain_from=None)
    n_ctx = min(n_ctx, trained_context(summary))
    return plan_memory(
        summary,
        own,
        n_ctx=n_ctx,
        n_seqs=1,
        n_batch=DRAFT_SLICE,
        cache_type="f16",
        gpu_layers=gpu_layers,
    )


def _without_gpu_layers(summary: Summary, gpu_layers: int) -> Summary:
    """The model without the last layers; the output, which is one of them, is copied to the GPU."""
    layers = _Shape(summary.keys).layers
    kept = 0 if gpu_layers < 0 else min(layers, max(0, layers + 1 - gpu_layers))
    gone = {f"blk.{layer}" for layer in range(kept, layers)}
    tensors = tuple(t for t in summary.tensors if ".".join(t.name.split(".")[:2]) not in gone)
    spared = sum(t.n_bytes for t in summary.tensors) - sum(t.n_bytes for t in tensors)
    return replace(
        summary,
        keys={**summary.keys, "gemma2.block_count": kept},
        tensors=tensors,
        data_bytes=summary.data_bytes - spared,
    )


def _resident(summary: Summary, *, repack: bool) -> int:
    """Bytes of weights in memory.

    Repacked tensors are copied, and those that lie between tensors that are used from the mapped
    file stay resident there, too.
    """
    if not repack:
        return summary.data_bytes
    return _mapped_beside_repacked(summary) + _copied(summary)


def _copied(summary: Summary) -> int:
    """Bytes of the repacked weights, with those of the embedding, which is the output, too."""
    types = _repacked_types()
    return sum(
        tensor.n_bytes
        for tensor in summary.tensors
        if _is_repacked(tensor, types) or (tensor.name == _EMBEDDING and tensor.type in types)
    )


def _mapped_beside_repacked(summary: Summary) -> int:
    """Bytes of the file that stay mapped where what can be repacked is."""
    sizes = [tensor.n_bytes for tensor in summary.tensors]
    types = _repacked_types()
    used = [n for n, tensor in enumerate(summary.tensors) if not _is_repacked(tensor, types)]
    if len(used) == len(sizes):
        return summary.data_bytes
    return sum(sizes[used[0] : used[-1] + 1]) if used else 0


def _is_repacked(tensor: TensorEntry, types: set[str]) -> bool:
    return tensor.type in types and len(tensor.dims) == 2 and tensor.name.startswith("blk.")


def _repacked_types() -> set[str]:
    """The types that are repacked here; where the features are unknown, as on usual processors."""
    present = hardware.features() or {"asimddp" if hardware.is_arm() else "avx2"}
    return {name for feature, names in _REPACKED.items() if feature in present for name in names}


class _Shape:
    """The sizes that matter here, from the keys of a file; 0 for a missing or invalid one."""

    def __init__(self, keys: dict[str, Any]) -> None:
        def number(name: str) -> int:
            value = keys.get(f"gemma2.{name}")
            return value if isinstance(value, int) and value >= 0 else 0

        self.layers = layers = number("block_count")
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

    def cells(self, n_ctx: int, n_seqs: int, n_ubatch: int) -> tuple[int, int]:
        """The cells of the layers that hold the whole context, and of those that hold a window."""
        full = _padded(n_ctx)
        return full, _padded(min(full, self.window * n_seqs + n_ubatch))

    def kv_bytes(self, full: int, window: int, cache_type: str) -> int:
        """The size of a KV cache of so many cells."""
        cells = self.full_layers * full + self.window_layers * window
        return int(cells * self.kv_row * CACHE_TYPES[cache_type])

    def compute_bytes(self, full: int, window: int, n_ubatch: int, flash_attention: str) -> int:
        """The size of the compute buffers."""
        found = 4 * n_ubatch * (3 * self.ffn + 4 * self.hidden) + 2 * n_ubatch * (full + window)
        if flash_attention == "off":  # then a score for every head and pair of tokens is stored
            found += 4 * self.heads * full * n_ubatch
        return found


def _padded(cells: int) -> int:
    return -(-cells // CELL_PADDING) * CELL_PADDING
