"""Quantise: stored floats -> float32 -> bytes of blocks, a chunk of whole rows at a time.

The installed ggml library makes the blocks, or kernels that make the same bytes faster: they equal
the bytes that `llama_model_quantize` of this installation makes.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import BadCheckpoint, BadModelFile
from edgesppo.llama.library import ggml_base
from edgesppo.system import notices
from edgesppo_convert.quant.finite_blocks import first_non_finite
from edgesppo_convert.quant.kernels import choose_kernels
from edgesppo_convert.quant.low_rank import LowRankUpdate
from edgesppo_convert.quant.recipe import BF16, F16, block_length, row_bytes, rows_per_chunk
from edgesppo_convert.quant.widen import widen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

    from edgesppo_convert.gemma2.architecture import Weight
    from edgesppo_convert.gemma2.lora import LowRank
    from edgesppo_convert.source.safetensors import Tensor

# The largest weight that a type can hold. For blocks, their scales are checked instead.
LARGEST_HALF = np.float32(65504)
LARGEST_FLOAT = np.finfo(np.float32).max
LARGEST = {F16: LARGEST_HALF, BF16: np.uint32(0x7F7F0000).view(np.float32)}
MEMORY = 320 << 20  # bytes that all chunks in progress may take
MAX_PENDING = 64 << 20  # bytes of MEMORY for finished chunks that wait to be written
# Bytes per weight at most: as float32 while it is quantised; as stored, and as blocks, until it is
# written.
BUSY, DONE = 4, 8


class Quantizer:
    """Turns chunks of rows into blocks; thread-safe.

    `tensors` lists all tensors with their block types; `importance` has the importance of each
    column by tensor name; `kernels` says which code makes the blocks, see `choose_kernels`.
    `fallback_reason` says why fast kernels that are installed are not used, else it is None.
    """

    def __init__(
        self,
        tensors: Iterable[tuple[Weight, GGMLQuantizationType]],
        importance: Mapping[str, NDArray[np.float32]],
        kernels: str,
    ) -> None:
        self._ggml = ggml_base()
        self._importance = importance
        weights: Counter[GGMLQuantizationType] = Counter()
        for weight, kind in tensors:
            self._ggml.ggml_quantize_init(kind)
            weights[kind] += 0 if weight.name in self._importance else weight.size
        self._fast, self.fallback_reason = choose_kernels(kernels, self._quantize_by_ggml, weights)
        self._has_zeros = False
        self._scratch = _Scratch()
        self._update = LowRankUpdate()

    @property
    def kernels(self) -> str:
        """The code that makes the blocks: "fast" (where it can) or "ggml"."""
        return "fast" if self._fast else "ggml"

    def blocks(
        self,
        weight: Weight,
        tensor: Tensor,
        kind: GGMLQuantizationType,
        first: int,
        rows: int,
        products: Iterable[LowRank] = (),
    ) -> tuple[memoryview, bytearray]:
        """Read `rows` rows of a tensor from row `first` on: the stored bytes, and their blocks.

        `products` are added to the rows before they are quantised.
        Raises BadCheckpoint for NaN, Inf, or weights too large for the type.
        """
        stored = np.empty(rows * weight.row * tensor.itemsize, np.uint8)
        tensor.read(first * weight.row, stored.data)
        values = self._scratch.floats(rows * weight.row)
        widen(tensor.dtype, stored, values)
        self._update.add(products, values.reshape(rows, weight.row), first)
        largest = _check_values(weight, kind, values, first)
        if weight.is_norm:
            values += np.float32(1)
        elif not largest:
            self._note_zeros(weight, first)
        data = bytearray(rows * row_bytes(kind, weight.row))
        out = np.frombuffer(data, np.uint8)
        importance = self._importance.get(weight.name)
        is_usual = importance is None and largest <= LARGEST_HALF
        if self._fast and kind in self._fast.kinds and is_usual:
            self._fast.blocks(kind, values, out)
        else:
            self._quantize_by_ggml(kind, values, out, rows, importance)
        block = first_non_finite(kind, out)
        if block is not None:
            raise _overflow(weight, kind, values, first, block, calibrated=importance is not None)
        return stored.data, data

    def _note_zeros(self, weight: Weight, first: int) -> None:
        """Say of the first stretch of zeros that it may be a hole in the file."""
        if not self._has_zeros:
            self._has_zeros = True
            notices.notify(
                f"tensor {weight.source} is zero from row {first:,} on, for a whole stretch: unless"
                " the model was made so, the download of its file has not finished; compare its"
                " hash, or download it again"
            )

    def _quantize_by_ggml(
        self,
        kind: GGMLQuantizationType,
        values: NDArray[np.float32],
        out: NDArray[np.uint8],
        rows: int = 1,
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        source, target = values.ctypes.data, out.ctypes.data
        weighting = None if importance is None else importance.ctypes.data
        self._ggml.ggml_quantize_chunk(
            kind, source, target, 0, rows, values.size // rows, weighting
        )


def max_threads(threads: int, weights: Iterable[Weight]) -> int:
    """At most `threads`, but no more than can work within MEMORY on rows of these lengths."""
    chunk = max(rows_per_chunk(weight.row) * weight.row for weight in weights)
    most = (MEMORY - MAX_PENDING) // ((BUSY + DONE) * chunk)
    return max(1, min(threads, most))


class _Scratch(threading.local):
    """One buffer per thread, reused from chunk to chunk."""

    def __init__(self) -> None:
        self._floats = np.empty(0, np.float32)

    def floats(self, count: int) -> NDArray[np.float32]:
        if self._floats.size < count:
            self._floats = np.empty(count, np.float32)
        return self._floats[:count]


def _check_values(
    weight: Weight, kind: GGMLQuantizationType, values: NDArray[np.float32], first: int
) -> float:
    """Refuse NaN, Inf and values that would become Inf; otherwise the largest magnitude."""
    limit = LARGEST.get(kind, LARGEST_FLOAT)
    with np.errstate(invalid="ignore"):
        # A NaN makes both NaN, so that the comparison is false.
        least, most = values.min(), values.max()
        if -limit <= least and most <= limit:
            return float(max(-least, most))
        flat = int(np.flatnonzero(~(np.abs(values) <= limit))[0])
    raise _refusal(weight, kind, values, first, flat)


def _overflow(
    weight: Weight,
    kind: GGMLQuantizationType,
    values: NDArray[np.float32],
    first: int,
    block: int,
    *,
    calibrated: bool,
) -> BadCheckpoint | BadModelFile:
    """The error for a block with a scale of NaN or Inf: its largest weight or its importances."""
    begin = block * block_length(kind)
    flat = begin + int(np.abs(values[begin : begin + block_length(kind)]).argmax())
    if calibrated and abs(values[flat]) <= LARGEST_HALF:
        return BadModelFile(
            f"the importance matrix has values too large for {weight.source}: in {kind.name} its"
            f" weights at {_position(weight, first, flat)} would be NaN or Inf; measure it again,"
            " or convert without --imatrix"
        )
    return _refusal(weight, kind, values, first, flat)


def _refusal(
    weight: Weight, kind: GGMLQuantizationType, values: NDArray[np.float32], first: int, flat: int
) -> BadCheckpoint:
    reason = (
        f"that is too large for {kind.name}: try --type bf16"
        if np.isfinite(values[flat])
        else "the checkpoint is damaged, or its training failed: download it again"
    )
    position = _position(weight, first, flat)
    return BadCheckpoint(
        f"tensor {weight.source} has the value {values[flat]} at {position}; {reason}"
    )


def _position(weight: Weight, first: int, flat: int) -> str:
    row, column = divmod(flat, weight.row)
    return f"[{column}]" if weight.is_norm else f"[{first + row}, {column}]"
