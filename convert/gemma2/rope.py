"""Read the base frequency of the rotary positions, in every form that transformers writes it.

    "rope_theta": 10000.0                                                transformers 4
    "rope_scaling": null | {"type": ...} | {"rope_type": ...}            beside it
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}   transformers 5
    "rope_parameters": {"full_attention": {...}, "sliding_attention": {...}}

As in transformers, the `rope_theta` inside goes before the one beside. llama.cpp runs Gemma-2 with
one base for all layers and without scaling, so a config that asks for more is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gguf import Keys

from edgesppo.gguf.gemma2 import NUMBERS
from edgesppo.system import notices
from edgesppo_convert.gemma2.numbers import float32_number
from edgesppo_convert.source.json_reader import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo_convert.source.json_reader import JsonObject

LAYER_TYPES = ("full_attention", "sliding_attention")
DEFAULT_BASE = 10000.0
BESIDE = "rope_theta"
HOLDERS = ("rope_scaling", "rope_parameters")  # in transformers, the first goes before the second
_UNSCALED = "a type that scales nothing, such as 'default': Gemma-2 does not scale its positions"
# These do nothing where their factor is 1; any other type is refused, whatever its factor.
_SCALED_BY_FACTOR = ("linear", "dynamic", "yarn")
_MUST_BE_ONE = ("factor", "attention_factor", "partial_rotary_factor")


def read_rope_base(config: JsonObject) -> float:
    """The base frequency; BadCheckpoint for positions that are scaled, or differ by layer."""
    beside = _base(config) if config.raw(BESIDE) is not None else None
    default = DEFAULT_BASE if beside is None else beside
    _check_factors(config)
    found = None
    for holder in HOLDERS:
        ropes = list(_parts(config, holder))
        bases = [_base_inside(rope, default) for rope in ropes]
        if len(set(bases)) > 1:
            config.refuse(holder, "the same rope_theta for all layers, as Gemma-2 has")
        if found is None and any(rope.raw(BESIDE) is not None for rope in ropes):
            found = bases[0]
    if found is None:
        return default
    if beside not in (None, found):
        notices.notify(
            f"{config.where} has the rope_theta {found:g} inside its rope_parameters, and"
            f" {beside:g} beside them; as in transformers 5, the one inside is used"
        )
    return found


def _parts(config: JsonObject, holder: str) -> Iterator[JsonObject]:
    """The parameters under a key: one object, or one for each type of layers."""
    if config.raw(holder) is None:
        return
    rope = config.object(holder)
    if not any(kind in rope for kind in LAYER_TYPES):
        yield rope
        return
    for kind in rope:
        if kind in LAYER_TYPES:
            if rope.raw(kind) is not None:
                yield rope.object(kind)
        elif rope.raw(kind) is not None:
            rope.refuse(kind, f"only {' and '.join(LAYER_TYPES)}")


def _base_inside(rope: JsonObject, default: float) -> float:
    for key in ("rope_type", "type"):
        kind = rope.raw(key)
        if kind not in (None, "default") and not _does_nothing(rope, kind):
            factor = rope.raw("factor")
            by = f" by the factor {show(factor)}" if factor is not None else ""
            rope.refuse(key, f"{_UNSCALED}; this scales them{by}")
    _check_factors(rope)
    return _base(rope) if rope.raw(BESIDE) is not None else default


def _does_nothing(rope: JsonObject, kind: object) -> bool:
    return kind in _SCALED_BY_FACTOR and rope.raw("factor") == 1


def _check_factors(holder: JsonObject) -> None:
    for key in _MUST_BE_ONE:
        if holder.raw(key) not in (None, 1):
            holder.refuse(key, "1: Gemma-2 does not scale its positions, and rotates whole heads")


def _base(holder: JsonObject) -> float:
    bounds = NUMBERS[Keys.Rope.FREQ_BASE.removeprefix("{arch}.")]
    return float32_number(holder, BESIDE, *bounds)
