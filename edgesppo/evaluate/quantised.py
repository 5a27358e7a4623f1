"""Quantise the matrices of a model file by ggml, to see what each type would change.

A matrix is worked on in chunks of rows, so memory does not grow with it. Blocks are those that the
converter writes for the same type and importance.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import BadModelFile
from edgesppo.llama.library import ggml_base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

    from edgesppo.gguf.reader import Summary, TensorEntry
    from edgesppo.llama.mapped_file import MappedFile

    Floats = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

_CHUNK = 1 << 22  # weights
_SAMPLED = 1 << 21  # weights of a matrix that errors are estimated from


@dataclass(frozen=True)
class Matrix:
    """A matrix of a model file, which is held open. Reading raises BadModelFile if it changed."""

    file: MappedFile
    entry: TensorEntry

    @property
    def name(self) -> str:
        """Its name in the file."""
        return self.entry.name

    @property
    def row(self) -> int:
        """Weights of a row."""
        return self.entry.dims[0]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.entry.dims[1]

    @property
    def kind(self) -> GGMLQuantizationType:
        """Its type in the file."""
        from gguf import GGMLQuantizationType

        return GGMLQuantizationType[self.entry.type]

    def size_as(self, kind: GGMLQuantizationType) -> int:
        """Its bytes in another type."""
        from edgesppo_convert.quant.recipe import row_bytes

        return self.rows * row_bytes(kind, self.row)

    def chunks(self) -> Iterator[tuple[int, Floats]]:
        """(first row, values) of chunks of rows, as float32."""
        step = max(1, _CHUNK // self.row)
        for first in range(0, self.rows, step):
            n = min(step, self.rows - first)
            yield first, self._values(range(first, first + n, n), n)

    def sample(self) -> Floats:
        """Rows from all over the matrix, at most as many as errors are estimated from."""
        step = max(1, -(-self.rows * self.row // _SAMPLED))
        return self._values(range(0, self.rows, step), 1)

    def _values(self, firsts: range, n: int) -> Floats:
        """The `n` rows from each of these rows on. Not mapped: a shorter file would be fatal."""
        self.file.check()
        row_bytes = self.entry.n_bytes // self.rows
        stored = np.empty((len(firsts), n * row_bytes), np.uint8)
        with self.file.open() as file:
            for first, rows in zip(firsts, stored, strict=True):
                file.seek(self.entry.offset + first * row_bytes)
                data = file.read(rows.nbytes)
                if len(data) < rows.nbytes:
                    raise BadModelFile(f"{self.file.path}: became shorter while it was read")
                rows[:] = np.frombuffer(data, np.uint8)
        return restored(stored.reshape(-1, row_bytes), self.kind)


def matrices_of(summary: Summary, file: MappedFile) -> list[Matrix]:
    """All matrices of a file, in order; norms are none."""
    return [Matrix(file, entry) for entry in summary.tensors if len(entry.dims) == 2]


def quantised(values: Floats, kind: GGMLQuantizationType, importance: Floats | None) -> Bytes:
    """Rows of float32 as rows of blocks."""
    from edgesppo_convert.quant.recipe import row_bytes

    library = ggml_base()
    library.ggml_quantize_init(kind)
    rows, row = values.shape
    values = np.ascontiguousarray(values)
    out = np.empty((rows, row_bytes(kind, row)), np.uint8)
    weighting = None if importance is None else importance.ctypes.data

    def work(first: int, n: int) -> None:
        source, target = values[first:].ctypes.data, out[first:].ctypes.data
        library.ggml_quantize_chunk(kind, source, target, 0, n, row, weighting)

    workers = os.cpu_count() or 1
    step = max(1, -(-rows // workers))
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(work, at, min(step, rows - at)) for at in range(0, rows, step)]
        for job in jobs:
            job.result()
    return out


def restored(blocks: Bytes, kind: GGMLQuantizationType) -> Floats:
    """Rows of blocks, or of plain numbers, as float32."""
    from gguf import GGMLQuantizationType, quants

    if kind is GGMLQuantizationType.F32:
        return np.ascontiguousarray(blocks).view(np.float32)
    if kind is GGMLQuantizationType.F16:
        return np.ascontiguousarray(blocks).view(np.float16).astype(np.float32)
    return quants.dequantize(np.ascontiguousarray(blocks), kind).astype(np.float32, copy=False)


def error_of(values: Floats, kind: GGMLQuantizationType, importance: Floats | None) -> float:
    """The squared error of the weights in this type, weighted by the importance of the columns."""
    difference = values - restored(quantised(values, kind, importance), kind)
    squares = np.square(difference, out=difference).sum(axis=0, dtype=np.float64)
    return float(squares.sum() if importance is None else squares @ importance.astype(np.float64))
