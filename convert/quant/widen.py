"""Widen stored floats to float32, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def widen(dtype: str, stored: NDArray[np.uint8], values: NDArray[np.float32]) -> None:
    """Convert stored elements (BF16, F16 or F32) to float32, exactly, into `values`."""
    if dtype == "F32":
        np.copyto(values, stored.view(np.float32))
    elif dtype == "F16":
        np.copyto(values, stored.view(np.float16))
    else:  # a bfloat16 is the upper half of a float32
        np.left_shift(stored.view(np.uint16), 16, out=values.view(np.uint32), dtype=np.uint32)
