"""Add a LoRA adapter's products to rows of a matrix, in float32, as peft's own merge does."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import BadCheckpoint
from edgesppo_convert.quant.widen import widen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from edgesppo_convert.gemma2.lora import LowRank
    from edgesppo_convert.source.safetensors import Tensor

# Multiplications in a tile: with more OpenBLAS starts threads of its own, which wait for each other
# on the cores that the conversion's threads use already, at twenty times the cost.
TILE = 1 << 18
TILE_ROWS, MIN_TILE = 16, 16
KEPT = 8  # factors in memory: the matrices are converted one after the other


class LowRankUpdate:
    """Adds products to rows; keeps the factors of the last matrices. Thread-safe."""

    def __init__(self) -> None:
        self._read_or_kept = lru_cache(KEPT)(_read_factor)
        self._one_at_a_time = threading.Lock()

    def _factor(self, tensor: Tensor) -> NDArray[np.float32]:
        """The factor; without the lock all threads would read the same one at once."""
        with self._one_at_a_time:
            return self._read_or_kept(tensor)

    def add(self, products: Iterable[LowRank], rows: NDArray[np.float32], first: int) -> None:
        """Add each product in turn to `rows`, which are a matrix's from row `first` on."""
        last = first + len(rows)
        for product in products:
            a, b = self._factor(product.a), self._factor(product.b)
            if product.is_transposed:
                update = np.ascontiguousarray(_multiplied(b, a[:, first:last]).T)
            else:
                update = _multiplied(b[first:last], a)
            update *= np.float32(product.scale)
            rows += update


def _multiplied(b: NDArray[np.float32], a: NDArray[np.float32]) -> NDArray[np.float32]:
    """B @ A in tiles, each small enough for OpenBLAS to compute it on the thread that asks."""
    product = np.empty((len(b), a.shape[1]), np.float32)
    width = max(MIN_TILE, TILE // (TILE_ROWS * len(a)))
    for top in range(0, len(b), TILE_ROWS):
        rows = slice(top, top + TILE_ROWS)
        for left in range(0, a.shape[1], width):
            columns = slice(left, left + width)
            with np.errstate(over="ignore", invalid="ignore"):  # the sum is checked afterwards
                np.matmul(b[rows], a[:, columns], out=product[rows, columns])
    return product


def _read_factor(tensor: Tensor) -> NDArray[np.float32]:
    stored = np.empty(tensor.nbytes, np.uint8)
    tensor.read(0, stored.data)
    values = np.empty(tensor.size, np.float32)
    widen(tensor.dtype, stored, values)
    if not np.isfinite(values).all():
        raise BadCheckpoint(
            f"{tensor.shard.path}: tensor {tensor.name} has NaN or Inf; the adapter is damaged, or"
            " its training failed: copy it again from where it was trained"
        )
    return values.reshape(tensor.shape)
