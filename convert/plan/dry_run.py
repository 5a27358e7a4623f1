"""Owns the look ahead: what a conversion would make of each tensor, without making it.

Reads headers, config and vocabulary only. Prints nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.system.fs import FileSystem
from edgesppo_convert.plan.plan import check_choices, plan_conversion
from edgesppo_convert.source.hub_checkpoint import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file to come."""

    name: str
    shape: tuple[int, ...]  # slowest first, as in the checkpoint
    type: str
    bytes: int


@dataclass(frozen=True)
class Outlook:
    """Every tensor of the file to come, in its order."""

    tensors: tuple[PlannedTensor, ...]

    @property
    def bytes(self) -> int:
        """Of all tensors' data, without the file's header and padding."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """On average."""
        return 8 * self.bytes / sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def types(self) -> Mapping[str, int]:
        """Block type -> tensors."""
        return dict(Counter(tensor.type for tensor in self.tensors))


def look_ahead(
    source: str | Path,
    *,
    type: str = "q4_k_m",
    tensor_types: Sequence[str] = (),
    imatrix: str | Path | None = None,
    layout: str = "edge",
) -> Outlook:
    """What `convert` with the same arguments would make; refuses what it would refuse."""
    choices = check_choices(type, tensor_types, imatrix, layout)
    with open_checkpoint(source, Path("nothing is written"), FileSystem()) as checkpoint:
        jobs = plan_conversion(checkpoint, choices).jobs
    return Outlook(
        tuple(
            PlannedTensor(job.weight.name, job.weight.shape, job.kind.name, job.nbytes)
            for job in jobs
        )
    )
