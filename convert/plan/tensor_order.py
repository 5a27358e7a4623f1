"""The order of the tensors in the output, and the job of converting each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from gguf import MODEL_TENSOR

from edgesppo_convert.gguf_format import TensorInfo
from edgesppo_convert.quant.recipe import row_bytes, rows_per_chunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gguf import GGMLQuantizationType

    from edgesppo_convert.gemma2.architecture import Weight
    from edgesppo_convert.gemma2.lora import LowRank
    from edgesppo_convert.source.safetensors import Tensor

Layout = Literal["edge", "standard"]
LAYOUTS = get_args(Layout)


@dataclass(frozen=True)
class TensorJob:
    """One tensor to convert: what it is, where it is read from, and its block type."""

    weight: Weight
    tensor: Tensor
    kind: GGMLQuantizationType
    products: tuple[LowRank, ...] = ()  # of adapters, to be added to it

    @property
    def nbytes(self) -> int:
        """Bytes of its blocks."""
        return self.weight.rows * row_bytes(self.kind, self.weight.row)

    @property
    def info(self) -> TensorInfo:
        """The tensor's entry in the output's header."""
        return TensorInfo(self.weight.name, self.weight.shape, self.kind, self.nbytes)

    @property
    def location(self) -> tuple[str, int]:
        """Where it is in the checkpoint: the shard's name, and the offset of its first byte."""
        return self.tensor.shard.name, self.tensor.offset

    def prefetch(self, first: int, rows: int) -> int:
        """Ask the system to read these rows ahead; the offset of their first byte in the shard."""
        self.tensor.prefetch(first * self.weight.row, rows * self.weight.row)
        return self.tensor.offset + first * self.weight.row * self.tensor.itemsize

    def buffer_bytes(self, rows: int) -> int:
        """Bytes of memory for `rows` rows, as stored and as blocks together."""
        stored = self.weight.row * self.tensor.itemsize
        return rows * (stored + row_bytes(self.kind, self.weight.row))

    def chunks(self) -> Iterator[tuple[int, int]]:
        """The first row and number of rows of each chunk."""
        step = rows_per_chunk(self.weight.row)
        for first in range(0, self.weight.rows, step):
            yield first, min(step, self.weight.rows - first)


def sort_jobs(jobs: Iterable[TensorJob], layout: str) -> list[TensorJob]:
    """The jobs in the order of the output; `layout` is one of LAYOUTS."""
    if layout == "edge":
        return sorted(jobs, key=lambda job: edge_key(job.weight, job.kind))
    return sorted(jobs, key=_standard_key)


def edge_key(weight: Weight, kind: GGMLQuantizationType) -> tuple[bool, bool, float, int]:
    """Norms, token_embd, then the layers' matrices by bits per weight, most bits first.

    At load, llama.cpp copies the types that it repacks (above all Q4_K), and can then unmap only
    pages at the end of the file; so those tensors come last. Sorting is stable: within a group the
    order is the checkpoint's.
    """
    bits = row_bytes(kind, weight.row) / weight.row
    embedding = weight.role is MODEL_TENSOR.TOKEN_EMBD
    return not weight.is_norm, not embedding, -bits, weight.layer


def _standard_key(job: TensorJob) -> tuple[int, str]:
    """By layer and name, as `llama_model_quantize` writes tensors."""
    return job.weight.layer, job.weight.name
