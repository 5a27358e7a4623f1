"""Owns the order of the tensors in the output, and what is known of each before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gguf import MODEL_TENSOR

from edgesppo_convert.gguf_format import TensorInfo
from edgesppo_convert.quant.quantize import rows_per_chunk
from edgesppo_convert.quant.recipe import row_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gguf import GGMLQuantizationType

    from edgesppo_convert.gemma2.architecture import Weight
    from edgesppo_convert.source.safetensors import Tensor

LAYOUTS = ("edge", "standard")


@dataclass(frozen=True)
class TensorJob:
    """One tensor on its way: what it is, where it lies, what it becomes."""

    weight: Weight
    tensor: Tensor
    kind: GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        """Bytes of its blocks."""
        return self.weight.rows * row_bytes(self.kind, self.weight.row)

    @property
    def info(self) -> TensorInfo:
        """How the file announces it."""
        return TensorInfo(self.weight.name, self.weight.shape, self.kind, self.nbytes)

    @property
    def place(self) -> tuple[str, int]:
        """Where it lies in the checkpoint: in which shard, and where it begins there."""
        return self.tensor.shard.name, self.tensor.offset

    def expect(self, first: int, rows: int) -> int:
        """Let the system begin to read these rows; where in the shard they begin."""
        self.tensor.expect(first * self.weight.row, rows * self.weight.row)
        return self.tensor.offset + first * self.weight.row * self.tensor.itemsize

    def held(self, rows: int) -> int:
        """Bytes that so many rows take as they are stored and as blocks."""
        stored = self.weight.row * self.tensor.itemsize
        return rows * (stored + row_bytes(self.kind, self.weight.row))

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First row and number of rows of every chunk."""
        step = rows_per_chunk(self.weight.row)
        for first in range(0, self.weight.rows, step):
            yield first, min(step, self.weight.rows - first)


def in_order(jobs: Iterable[TensorJob], layout: str) -> list[TensorJob]:
    """As they will stand in the file."""
    return sorted(jobs, key=_edge_place if layout == "edge" else _standard_place)


def _edge_place(job: TensorJob) -> tuple[bool, bool, float, int]:
    """Norms, token_embd, then the blocks' matrices by bits a weight, most first.

    llama.cpp copies the types that it repacks (Q4_K first of all) at load, and can then give back
    the mapped pages at the end of the file only; so what it copies stands at the end. Sorting is
    stable: within a group the order is the checkpoint's.
    """
    weight = job.weight
    bits = row_bytes(job.kind, weight.row) / weight.row
    embedding = weight.role is MODEL_TENSOR.TOKEN_EMBD
    return not weight.is_norm, not embedding, -bits, weight.layer


def _standard_place(job: TensorJob) -> tuple[int, str]:
    """By layer and name, as `llama_model_quantize` writes them."""
    return job.weight.layer, job.weight.name
