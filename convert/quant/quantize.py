"""Owns the numbers: stored floats -> float32 -> block bytes, a chunk of whole rows at a time.

The blocks are made by the shipped ggml library, or by kernels that make the same bytes faster, so
they are the bytes that `llama_model_quantize` of this installation makes. Knows nothing of files.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import BadCheckpoint, BadModelFile
from edgesppo.llama.library import ggml_base
from edgesppo_convert.quant.finite_blocks import first_unsound
from edgesppo_convert.quant.kernels import choose
from edgesppo_convert.quant.recipe import BF16, F16, block_length, row_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

    from edgesppo_convert.gemma2.architecture import Weight
    from edgesppo_convert.source.safetensors import Tensor

# The largest weight that a type can hold. What blocks can hold, their scales show.
LARGEST_HALF = np.float32(65504)
LARGEST_FLOAT = np.finfo(np.float32).max
LARGEST = {F16: LARGEST_HALF, BF16: np.uint32(0x7F7F0000).view(np.float32)}
CHUNK = 1 << 19  # weights; a row that is longer is a chunk of its own
MEMORY = 320 << 20  # bytes that all chunks under way may take
WAITING = 64 << 20  # of them, those of chunks that are done and wait for their turn
# Bytes a weight at most: as float32 while a thread has it; as stored and its blocks, until the end.
BUSY, DONE = 4, 8


class Quantizer:
    """Turns chunks of rows into blocks; any number of threads may share one.

    `work` tells what will come; `importance` how much each column of a tensor matters; `kernels`
    which code shall make the blocks, see `kernels.choose`.
    """

    def __init__(
        self,
        work: Iterable[tuple[Weight, GGMLQuantizationType]],
        importance: Mapping[str, NDArray[np.float32]],
        kernels: str,
    ) -> None:
        self._ggml = ggml_base()
        self._importance = importance
        weights: Counter[GGMLQuantizationType] = Counter()
        for weight, kind in work:
            self._ggml.ggml_quantize_init(kind)
            weights[kind] += 0 if weight.name in self._importance else weight.size
        self._fast, self.doubt = choose(kernels, self._by_ggml, weights)
        self._scratch = _Scratch()

    @property
    def kernels(self) -> str:
        """Which code makes the blocks: "fast" (where it can) or "ggml"."""
        return "fast" if self._fast else "ggml"

    def blocks(
        self, weight: Weight, tensor: Tensor, kind: GGMLQuantizationType, first: int, rows: int
    ) -> tuple[memoryview, bytearray]:
        """`rows` rows from row `first` on, as they are stored, and their blocks."""
        stored = np.empty(rows * weight.row * tensor.itemsize, np.uint8)
        tensor.read(first * weight.row, stored.data)
        values = self._scratch.floats(rows * weight.row)
        widen(tensor.dtype, stored, values)
        largest = _check_values(weight, kind, values, first)
        if weight.is_norm:
            values += np.float32(1)
        data = bytearray(rows * row_bytes(kind, weight.row))
        out = np.frombuffer(data, np.uint8)
        importance = self._importance.get(weight.name)
        is_usual = importance is None and largest <= LARGEST_HALF
        if self._fast and kind in self._fast.kinds and is_usual:
            self._fast.blocks(kind, values, out)
        else:
            self._by_ggml(kind, values, out, rows, importance)
        block = first_unsound(kind, out)
        if block is not None:
            raise _overflow(weight, kind, values, first, block, calibrated=importance is not None)
        return stored.data, data

    def _by_ggml(
        self,
        kind: GGMLQuantizationType,
        values: NDArray[np.float32],
        out: NDArray[np.uint8],
        rows: int = 1,
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        source, target = values.ctypes.data, out.ctypes.data
        weigh = None if importance is None else importance.ctypes.data
        self._ggml.ggml_quantize_chunk(kind, source, target, 0, rows, values.size // rows, weigh)


def fitting(threads: int, weights: Iterable[Weight]) -> int:
    """As many of the threads as can be at work within MEMORY, whatever the length of the rows."""
    chunk = max(rows_per_chunk(weight.row) * weight.row for weight in weights)
    most = (MEMORY - WAITING) // ((BUSY + DONE) * chunk)
    return max(1, min(threads, most))


def rows_per_chunk(row: int) -> int:
    """How many whole rows of this length make a chunk."""
    return max(1, CHUNK // row)


class _Scratch(threading.local):
    """A buffer a thread, kept from chunk to chunk."""

    def __init__(self) -> None:
        self._floats = np.empty(0, np.float32)

    def floats(self, count: int) -> NDArray[np.float32]:
        if self._floats.size < count:
            self._floats = np.empty(count, np.float32)
        return self._floats[:count]


def widen(dtype: str, stored: NDArray[np.uint8], values: NDArray[np.float32]) -> None:
    """The stored elements into `values` as float32, exactly, and without further memory."""
    if dtype == "F32":
        np.copyto(values, stored.view(np.float32))
    elif dtype == "F16":
        np.copyto(values, stored.view(np.float16))
    else:  # a bfloat16 is the upper half of a float32
        np.left_shift(stored.view(np.uint16), 16, out=values.view(np.uint32), dtype=np.uint32)


def _check_values(
    weight: Weight, kind: GGMLQuantizationType, values: NDArray[np.float32], first: int
) -> float:
    """Refuse NaN, Inf and what would become Inf, and say where it is; else the largest size."""
    limit = LARGEST.get(kind, LARGEST_FLOAT)
    with np.errstate(invalid="ignore"):
        # A NaN makes both ends NaN, which compares false.
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
    """Why a block holds no numbers: its largest weight, or what weighs its columns."""
    begin = block * block_length(kind)
    flat = begin + int(np.abs(values[begin : begin + block_length(kind)]).argmax())
    if calibrated and abs(values[flat]) <= LARGEST_HALF:
        return BadModelFile(
            f"the importance matrix has numbers too large for {weight.source}: in {kind.name} its"
            f" weights at {_place(weight, first, flat)} would be NaN or Inf; measure it anew, or"
            " convert without --imatrix"
        )
    return _refusal(weight, kind, values, first, flat)


def _refusal(
    weight: Weight, kind: GGMLQuantizationType, values: NDArray[np.float32], first: int, flat: int
) -> BadCheckpoint:
    reason = (
        f"too large for {kind.name}: try --type bf16"
        if np.isfinite(values[flat])
        else "the checkpoint is damaged, or its training failed"
    )
    place = _place(weight, first, flat)
    return BadCheckpoint(f"tensor {weight.source} holds {values[flat]} at {place}; {reason}")


def _place(weight: Weight, first: int, flat: int) -> str:
    row, column = divmod(flat, weight.row)
    return f"[{column}]" if weight.is_norm else f"[{first + row}, {column}]"
