"""Blocks whose scales are not finite are found, as ggml finds them, and never written."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesppo.llama.library import ggml_base
from edgesppo_convert.quant.finite_blocks import SCALES, first_non_finite
from edgesppo_convert.quant.recipe import OVERRIDES, PLAIN, row_bytes

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType


def is_sound(kind: GGMLQuantizationType, blocks: np.ndarray) -> bool:
    """Whether ggml accepts the blocks."""
    validate = ggml_base().ggml_validate_row_data
    validate.argtypes, validate.restype = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t], bool
    return bool(validate(kind, blocks.ctypes.data, blocks.nbytes))


def test_every_block_type_has_its_scales() -> None:
    assert SCALES.keys() == {*OVERRIDES.values()} - PLAIN


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("half", [0x7C00, 0xFC00, 0x7E01, 0x7BFF])
def test_a_half_anywhere_is_judged_as_ggml_does(kind: GGMLQuantizationType, half: int) -> None:
    """Inf, -Inf, NaN and the largest number, at every offset of the second of three blocks."""
    size = row_bytes(kind, 256) // (256 // _length(kind))
    for place in range(0, size - 1, 2):
        blocks = np.zeros(3 * size, np.uint8)
        blocks[size + place : size + place + 2].view(np.uint16)[0] = half
        found = first_non_finite(kind, blocks)
        assert found in (None, 1)
        assert (found is None) == is_sound(kind, blocks), place


def _length(kind: GGMLQuantizationType) -> int:
    from edgesppo_convert.quant.recipe import block_length

    return block_length(kind)
