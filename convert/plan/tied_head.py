"""Check that a separate `lm_head` equals the embedding: Gemma-2's output is tied to it.

llama.cpp silently uses the embedding, so a different head would be lost. The values are compared,
bit for bit, as float32: the two may be stored in different types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesppo.errors import BadCheckpoint
from edgesppo_convert.gemma2.architecture import EMBEDDING, HEAD
from edgesppo_convert.quant.widen import widen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from edgesppo_convert.source.checkpoint import Checkpoint
    from edgesppo_convert.source.safetensors import Tensor

COMPARED = 1 << 20  # elements compared at a time


def check_head(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Raise BadCheckpoint if there is an `lm_head` that differs from the embedding."""
    if HEAD not in tensors:
        return
    head, embedding = tensors[HEAD], tensors[EMBEDDING]
    pairs = zip(_values(checkpoint, head), _values(checkpoint, embedding), strict=True)
    if not all((one.view("u4") == other.view("u4")).all() for one, other in pairs):
        raise BadCheckpoint(
            f"tensor {HEAD} differs from {EMBEDDING}; expected the same values: llama.cpp ties them"
            " for Gemma-2, so the head would be lost"
        )


def _values(checkpoint: Checkpoint, tensor: Tensor) -> Iterator[NDArray[np.float32]]:
    """The values of a tensor as float32, COMPARED elements at a time."""
    size, pending = COMPARED * tensor.itemsize, bytearray()
    for data in checkpoint.stream(tensor):
        pending += data
        while len(pending) >= size:
            yield _floats(tensor, pending[:size])
            del pending[:size]
    yield _floats(tensor, pending)


def _floats(tensor: Tensor, stored: bytearray) -> NDArray[np.float32]:
    values = np.empty(len(stored) // tensor.itemsize, np.float32)
    widen(tensor.dtype, np.frombuffer(stored, np.uint8), values)
    return values
