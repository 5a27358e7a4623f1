"""Read a number of a config that must also be in bounds as the float32 that GGUF stores."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesppo_convert.source.json_reader import JsonObject


def float32_number(
    config: JsonObject, name: str, low: float, high: float, default: float | None = None
) -> float:
    """Read a number that is in [low, high], also after rounding to float32."""
    expected = f"a number from {low:g} to {high:g}"
    value = config.raw(name) if name in config else default
    if type(value) not in (int, float) or value is None or not -high <= value <= high:
        config.refuse(name, expected)
    if not low <= struct.unpack("<f", struct.pack("<f", value))[0] <= high:
        config.refuse(name, expected)
    return float(value)
