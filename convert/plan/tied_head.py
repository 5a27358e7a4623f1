"""Owns the question whether a separate `lm_head` is the embedding: Gemma-2's output is tied.

llama.cpp silently uses the embedding, so another head would be lost. Stored as another kind of
float it may still hold the same values; those are compared, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import BadCheckpoint
from edgesppo_convert.gemma2.architecture import EMBEDDING, HEAD
from edgesppo_convert.quant.quantize import widen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edgesppo_convert.source.checkpoint import Checkpoint
    from edgesppo_convert.source.safetensors import Tensor

COMPARED = 1 << 20  # elements at a time


def check_head(checkpoint: Checkpoint) -> None:
    """Raises BadCheckpoint where there is a head of its own."""
    if HEAD not in checkpoint.tensors:
        return
    head, embedding = checkpoint.tensors[HEAD], checkpoint.tensors[EMBEDDING]
    pairs = zip(_values(checkpoint, head), _values(checkpoint, embedding), strict=True)
    if not all((one.view("u4") == other.view("u4")).all() for one, other in pairs):
        raise BadCheckpoint(
            f"tensor {HEAD} differs from {EMBEDDING}; Gemma-2 ties them, and llama.cpp would"
            " silently use the embedding"
        )


def _values(checkpoint: Checkpoint, tensor: Tensor) -> Iterator[NDArray[np.float32]]:
    """All of a tensor as float32, so many elements at a time."""
    size, waiting = COMPARED * tensor.itemsize, bytearray()
    for data in checkpoint.stored(tensor):
        waiting += data
        while len(waiting) >= size:
            yield _floats(tensor, waiting[:size])
            del waiting[:size]
    yield _floats(tensor, waiting)


def _floats(tensor: Tensor, stored: bytearray) -> NDArray[np.float32]:
    values = np.empty(len(stored) // tensor.itemsize, np.float32)
    widen(tensor.dtype, np.frombuffer(stored, np.uint8), values)
    return values
