"""Owns the check of finished blocks: their scales are numbers, as llama.cpp asks of its own.

A scale is a float16 in its block; sums that overflow on the way there leave Inf or NaN behind.
Knows nothing of how blocks are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from gguf import GGML_QUANT_SIZES

from edgesppo_convert.quant.recipe import (
    IQ4_NL,
    IQ4_XS,
    Q2_K,
    Q3_K,
    Q4_0,
    Q4_1,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
)

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

# Where the float16 numbers of a block are, in bytes from its first.
SCALES: dict[GGMLQuantizationType, tuple[int, ...]] = {
    Q4_0: (0,),
    Q4_1: (0, 2),
    Q5_0: (0,),
    Q5_1: (0, 2),
    Q8_0: (0,),
    Q2_K: (80, 82),
    Q3_K: (108,),
    Q4_K: (0, 2),
    Q5_K: (0, 2),
    Q6_K: (208,),
    IQ4_NL: (0,),
    IQ4_XS: (0,),
}
_EXPONENT = np.uint16(0x7C00)  # of Inf and NaN


def first_unsound(kind: GGMLQuantizationType, blocks: NDArray[np.uint8]) -> int | None:
    """The first of the blocks, uint8 one behind the other, that has no numbers, if any."""
    if kind not in SCALES:
        return None
    halves = blocks.view(np.uint16).reshape(-1, GGML_QUANT_SIZES[kind][1] // 2)
    columns = [place // 2 for place in SCALES[kind]]
    unsound = ((halves[:, columns] & _EXPONENT) == _EXPONENT).any(axis=1)
    return int(unsound.argmax()) if unsound.any() else None
