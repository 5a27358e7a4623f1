"""Keys below `gemma2.` that are not Gemma-2's own: which may stay, and which change the model.

llama.cpp reads some keys of every architecture from every file. Such a key is harmless with the
value that Gemma-2 has without it; with another value the model would be computed differently, or
the process would end. It looks at no other key, so those are harmless whatever they say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Key -> the values with which it changes nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.sliding_window_pattern": (2,),
    "classifier.pooling_type": (0,),
    "expert_count": (0,),
    "expert_group_count": (0,),
    "expert_group_used_count": (0,),
    "expert_used_count": (0,),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "rope.scale_linear": (0, 1),
    "rope.scaling.alpha": (0,),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.factor": (0, 1),
    "rope.scaling.finetuned": (False,),
    "rope.scaling.type": ("none", "linear"),
}
# Key -> the keys of which the first that is given has the value that it must repeat.
_REPEATS = {
    "attention.key_length_swa": ("attention.key_length",),
    "attention.value_length_swa": ("attention.value_length", "attention.key_length"),
    "embedding_length_out": ("embedding_length",),
    "rope.dimension_count_swa": ("rope.dimension_count", "attention.key_length"),
    "rope.freq_base_swa": ("rope.freq_base",),
}
_READ = frozenset((*_NEUTRAL, *_REPEATS, "classifier.output_labels"))
_ROPE_BASE = 10_000.0


def changes_model(name: str, value: Any, numbers: Mapping[str, Any], *, is_array: bool) -> bool:
    """Whether a key (without its prefix) makes llama.cpp compute another model than Gemma-2.

    `numbers` are the file's own hyper-parameters, without their prefix.
    """
    if name not in _READ:
        return False
    if is_array or name == "classifier.output_labels":
        return True
    if name in _NEUTRAL:
        return not any(_equal(value, neutral) for neutral in _NEUTRAL[name])
    given = (numbers[key] for key in _REPEATS[name] if key in numbers)
    expected = next(given, _ROPE_BASE if name == "rope.freq_base_swa" else None)
    return not _equal(value, expected)


def _equal(value: Any, expected: Any) -> bool:
    """Whether they are equal and both booleans, both texts or both numbers."""
    return _kind(value) is _kind(expected) and bool(value == expected)


def _kind(value: Any) -> type:
    return next((kind for kind in (bool, str) if isinstance(value, kind)), int)
