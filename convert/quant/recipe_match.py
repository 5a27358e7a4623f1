"""Whether the tensors of a file that is there have the types of the recipe that it names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gguf import MODEL_TENSOR

from edgesppo_convert.gemma2.architecture import Weight
from edgesppo_convert.quant.recipe import RECIPES, Setting, block_types

if TYPE_CHECKING:
    from edgesppo.gguf.reader import Summary

_LAYER = re.compile(r"blk\.(\d+)\.")
# The roles by which the recipes choose.
_ROLES = {
    "token_embd.weight": MODEL_TENSOR.TOKEN_EMBD,
    "attn_v.weight": MODEL_TENSOR.ATTN_V,
    "ffn_down.weight": MODEL_TENSOR.FFN_DOWN,
}


def follows_recipe(summary: Summary, name: str) -> bool | None:
    """Whether every tensor has the type that the recipe gives it; None for an unknown recipe.

    With or without an importance matrix, by which two recipes differ.
    """
    recipe = RECIPES.get(name.lower())
    if recipe is None:
        return None
    weights = sorted(
        (_weight(tensor.name, tensor.dims) for tensor in summary.tensors), key=lambda w: w.layer
    )
    keys = summary.keys
    heads, kv_heads = (keys[f"gemma2.attention.head_count{end}"] for end in ("", "_kv"))
    layers = keys["gemma2.block_count"]
    found = {tensor.name: tensor.type for tensor in summary.tensors}
    return any(
        found
        == {
            name: kind.name
            for name, kind in block_types(
                recipe, weights, Setting(layers, heads // kv_heads, calibrated)
            ).items()
        }
        for calibrated in (False, True)
    )


def _weight(name: str, dims: tuple[int, ...]) -> Weight:
    layer = _LAYER.match(name)
    role = _ROLES.get(name[layer.end() :] if layer else name, MODEL_TENSOR.ATTN_Q)
    return Weight(name, name, role, int(layer[1]) if layer else -1, dims[::-1])
