"""Check that the scales of finished blocks are finite, as llama.cpp checks its own.

A scale is a float16 in its block; it is Inf or NaN where a sum overflowed on the way to it.
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

# Offsets in bytes of the float16 scales within a block.
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
_EXPONENT = np.uint16(0x7C00)  # all ones: Inf or NaN


def first_non_finite(kind: GGMLQuantizationType, blocks: NDArray[np.uint8]) -> int | None:
    """The index of the first block with a scale that is Inf or NaN; None if all are finite.

    `blocks` holds the bytes of whole blocks of this type, one after the other.
    """
    if kind not in SCALES:
        return None
    halves = blocks.view(np.uint16).reshape(-1, GGML_QUANT_SIZES[kind][1] // 2)
    columns = [offset // 2 for offset in SCALES[kind]]
    non_finite = ((halves[:, columns] & _EXPONENT) == _EXPONENT).any(axis=1)
    return int(non_finite.argmax()) if non_finite.any() else None
