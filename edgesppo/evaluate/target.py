"""`Target`: the bytes that a target size leaves for the matrices, and whether types fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gguf import GGMLQuantizationType

    from edgesppo_convert import Outlook

# The types to choose from, for rows of whole blocks of 256; others have fewer to choose from.
LADDER = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16")
SHORT_ROWS = ("Q4_0", "IQ4_NL", "Q5_0", "Q5_1", "Q8_0", "F16")
_ALIGNMENT = 32  # bytes: where a tensor of the file begins


@dataclass(frozen=True)
class Target:
    """At most `size` bytes of file, or `bpw` bits per weight, for what `outlook` plans."""

    outlook: Outlook
    size: int | None
    bpw: float | None

    @property
    def budget(self) -> int:
        """The bytes that are left for the matrices."""
        if self.bpw is not None:
            return int(self.bpw * self._n_weights / 8)
        assert self.size is not None
        return self.size - self._others

    def cost(self, n_bytes: int) -> int:
        """What a matrix of so many bytes takes of `budget`: in a file, with its padding."""
        return n_bytes if self.size is None else n_bytes + -n_bytes % _ALIGNMENT

    @property
    def recipe_fits(self) -> bool | None:
        """Whether the recipe's own choice is small enough; None where `budget` tells."""
        return None if self.size is None else self.outlook.file_bytes <= self.size

    def check(self) -> None:
        """Raise UsageError if the matrices cannot have this size."""
        least, most = self._extreme(min), self._extreme(max)
        if self.budget < least:
            raise UsageError(
                f"{self._asked} is too small: the smallest that is possible is {self._as(least)}"
            )
        if self.budget > most:
            raise UsageError(
                f"{self._asked} is more than the matrices take as F16, {self._as(most)}: use "
                "--type f16 or bf16, or a smaller target"
            )

    @property
    def _asked(self) -> str:
        if self.bpw is not None:
            return f"the target of {self.bpw:g} bits per weight"
        return f"the target size of {self.size:,} bytes"

    def _as(self, n_bytes: int) -> str:
        """A size of the matrices as a target."""
        if self.bpw is not None:
            return f"{8 * n_bytes / self._n_weights:.4f} bits per weight"
        return f"{n_bytes + self._others:,} bytes"

    @property
    def _shapes(self) -> list[Sequence[int]]:
        return [tensor.shape for tensor in self.outlook.tensors if len(tensor.shape) == 2]

    @property
    def _n_weights(self) -> int:
        return sum(rows * row for rows, row in self._shapes)

    @property
    def _others(self) -> int:
        """The bytes of the file that are not the matrices'."""
        matrices = [tensor for tensor in self.outlook.tensors if len(tensor.shape) == 2]
        return self.outlook.file_bytes - sum(self.cost(tensor.bytes) for tensor in matrices)

    def _extreme(self, pick: Callable[[Sequence[int]], int]) -> int:
        """What all matrices take in their smallest or largest types."""
        from edgesppo_convert.quant.recipe import row_bytes

        return sum(
            self.cost(rows * pick([row_bytes(kind, row) for kind in kinds_of(row)]))
            for rows, row in self._shapes
        )


def kinds_of(row: int) -> list[GGMLQuantizationType]:
    """The types that a matrix can have, by the length of its rows."""
    from gguf import GGMLQuantizationType

    from edgesppo_convert.quant.recipe import block_length

    names = LADDER if row % 256 == 0 else SHORT_ROWS
    kinds = [GGMLQuantizationType[name] for name in names]
    return [kind for kind in kinds if row % block_length(kind) == 0]
