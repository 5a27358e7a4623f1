"""Dry run (`edgesppo convert --plan`): what a conversion would write, without reading weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.system import validate
from edgesppo.system.fs import FileSystem
from edgesppo_convert.plan.plan import parse_options, plan_conversion
from edgesppo_convert.source.adapter import open_adapters
from edgesppo_convert.source.hub_checkpoint import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo_convert.plan.tensor_order import Layout
    from edgesppo_convert.quant.recipe import RecipeName


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the planned file."""

    name: str
    shape: tuple[int, ...]  # slowest first, as in the checkpoint
    type: str  # block type, as Q4_K
    bytes: int


@dataclass(frozen=True)
class Outlook:
    """Every tensor of the planned file, in order, and the size of the whole file in bytes."""

    tensors: tuple[PlannedTensor, ...]
    file_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes of the data of all tensors, without the file's header and padding."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, on average."""
        return 8 * self.bytes / sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def types(self) -> Mapping[str, int]:
        """Block type -> number of tensors."""
        return dict(Counter(tensor.type for tensor in self.tensors))


@validate.suggests_keywords
def look_ahead(
    source: str | Path,
    *,
    type: RecipeName = "q4_k_m",
    tensor_types: Sequence[str] = (),
    imatrix: str | Path | None = None,
    layout: Layout = "edge",
    adapters: Sequence[str | Path] = (),
) -> Outlook:
    """What `convert` would write with the same arguments; raises the errors that it would raise.

    Writes nothing, and of a checkpoint on the hub downloads only the small files and the headers.
    """
    validate.path("source", source)
    options = parse_options(type, tensor_types, imatrix, layout)
    with (
        open_adapters(adapters) as opened,
        open_checkpoint(source, Path("nothing is written"), FileSystem()) as checkpoint,
    ):
        plan = plan_conversion(checkpoint, options, opened)
    tensors = (
        PlannedTensor(job.weight.name, job.weight.shape, job.kind.name, job.nbytes)
        for job in plan.jobs
    )
    return Outlook(tuple(tensors), plan.file.size)
