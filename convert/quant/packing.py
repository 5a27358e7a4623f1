"""Pack levels into Q4_K and Q6_K blocks: plain loops, written to be compiled by numba.

A level is the small whole number that stands for a weight: a multiple of the sub-block's stored
scale. Where that scale is stored as 0, ggml uses the levels of the search, and so does this.

    Q4_K | 16 B of scales | 4 x 32 B, each the levels of 32 weights low and of the next 32 high |
    Q6_K | 2 x 64 B of low nibbles | 2 x 32 B of high pairs | 18 B of scales |

A sub-block has 32 weights in Q4_K and 16 in Q6_K.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Blocks = NDArray[np.uint8]

F = np.float32
ZERO, FIFTEEN, SIXTEEN, THIRTY_ONE, THIRTY_TWO = F(0), F(15), F(16), F(31), F(32)
MINUS_32, GROUP_EPS = F(-32), F(1e-15)
MAGIC = F(3 << 22)  # added and subtracted, it rounds to the nearest whole number


def pack4(
    x: Floats, divisor: Floats, shift: Floats, factor: Floats, low: Floats, out: Blocks
) -> None:
    """Levels of 4 bits, for the scales as stored or, where one is 0, as the search found it."""
    levels = np.empty(256, np.float32)
    for block in range(divisor.shape[0]):
        for sub in range(8):
            d, dm = divisor[block, sub], shift[block, sub]
            start, at = block * 256 + sub * 32, sub * 32
            if d != ZERO:
                for i in range(32):
                    level = ((x[start + i] + dm) / d + MAGIC) - MAGIC
                    level = level if level < FIFTEEN else FIFTEEN
                    levels[at + i] = level if level > ZERO else ZERO
            else:
                f, m = factor[block, sub], low[block, sub]
                for i in range(32):
                    level = (f * (x[start + i] - m) + MAGIC) - MAGIC
                    level = level if level < FIFTEEN else FIFTEEN
                    levels[at + i] = level if level > ZERO else ZERO
        for quarter in range(4):
            at = quarter * 64
            for i in range(32):
                both = levels[at + i] + SIXTEEN * levels[at + 32 + i]
                out[block, 16 + quarter * 32 + i] = np.uint8(np.int32(both))


def pack6(x: Floats, divisor: Floats, factor: Floats, largest: Floats, out: Blocks) -> None:
    """Levels of 6 bits: as in `pack4`, but 0 in a sub-block of zeros."""
    wide, levels = np.empty(256, np.float32), np.empty(256, np.uint8)
    for block in range(divisor.shape[0]):
        for sub in range(16):
            d, f = divisor[block, sub], factor[block, sub]
            start, at = block * 256 + sub * 16, sub * 16
            rise = THIRTY_TWO if d != ZERO or largest[block, sub] >= GROUP_EPS else ZERO
            if d != ZERO:
                for i in range(16):
                    wide[at + i] = x[start + i] / d
            else:
                for i in range(16):
                    wide[at + i] = f * x[start + i]
            for i in range(16):
                level = (wide[at + i] + MAGIC) - MAGIC
                level = level if level < THIRTY_ONE else THIRTY_ONE
                wide[at + i] = (level if level > MINUS_32 else MINUS_32) + rise
        for i in range(256):  # a loop of its own: loops of 16 do not vectorise well
            levels[i] = np.uint8(np.int32(wide[i]))
        for half in range(2):
            at, low, high = half * 128, half * 64, 128 + half * 32
            for i in range(32):
                a, b = levels[at + i], levels[at + 32 + i]
                c, d6 = levels[at + 64 + i], levels[at + 96 + i]
                out[block, low + i] = np.uint8((a & 15) | ((c & 15) << 4))
                out[block, low + 32 + i] = np.uint8((b & 15) | ((d6 & 15) << 4))
                pairs = (a >> 4) | ((b >> 4) << 2) | ((c >> 4) << 4) | ((d6 >> 4) << 6)
                out[block, high + i] = np.uint8(pairs)
