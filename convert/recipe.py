"""Owns the choice of a block type for each tensor: a pure table, checkable by eye.

Follows llama.cpp's `src/llama-quant.cpp` (`llama_tensor_get_type_impl` and
`tensor_type_fallback`) for the tensors that Gemma-2 has. Knows nothing of bytes.

    q4_k_m  every matrix Q4_K, but Q6_K for token_embd (it is the tied output), and for attn_v
            and ffn_down in the layers that get more bits
    q8_0    every matrix Q8_0
    f16, bf16, f32   every matrix so

Norms are F32 always. A row that the block length does not divide falls back, see FALLBACK.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gguf import GGML_QUANT_SIZES, MODEL_TENSOR, GGMLQuantizationType, LlamaFileType

from edgesppo.errors import UsageError

if TYPE_CHECKING:
    from edgesppo_convert.gemma2 import Weight

F32, F16, BF16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16
Q8_0, Q5_0 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q5_0
Q4_K, Q6_K = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K

# A block type that needs longer rows -> the one that is used instead.
FALLBACK = {Q4_K: Q5_0, Q6_K: Q8_0}
SENSITIVE = frozenset((MODEL_TENSOR.ATTN_V, MODEL_TENSOR.FFN_DOWN))


@dataclass(frozen=True)
class Recipe:
    """What one `--type` makes of each tensor."""

    file_type: LlamaFileType
    base: GGMLQuantizationType
    embedding: GGMLQuantizationType
    more_bits: GGMLQuantizationType  # of the sensitive tensors in some layers


RECIPES = {
    "q4_k_m": Recipe(LlamaFileType.MOSTLY_Q4_K_M, Q4_K, embedding=Q6_K, more_bits=Q6_K),
    "q8_0": Recipe(LlamaFileType.MOSTLY_Q8_0, Q8_0, embedding=Q8_0, more_bits=Q8_0),
    "f16": Recipe(LlamaFileType.MOSTLY_F16, F16, embedding=F16, more_bits=F16),
    "bf16": Recipe(LlamaFileType.MOSTLY_BF16, BF16, embedding=BF16, more_bits=BF16),
    "f32": Recipe(LlamaFileType.ALL_F32, F32, embedding=F32, more_bits=F32),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, in any case."""
    try:
        return RECIPES[name.lower()]
    except KeyError:
        raise UsageError(f"no type {name!r}; there are {', '.join(RECIPES)}") from None


def block_type(recipe: Recipe, weight: Weight, layers: int) -> GGMLQuantizationType:
    """The type that this tensor of a model of so many layers gets."""
    if weight.is_norm:
        return F32
    return _fitting(_wanted(recipe, weight, layers), weight.row)


def _wanted(recipe: Recipe, weight: Weight, layers: int) -> GGMLQuantizationType:
    if weight.role is MODEL_TENSOR.TOKEN_EMBD:
        fits = weight.row % block_length(recipe.base) == 0
        return recipe.embedding if fits else Q8_0
    if weight.role in SENSITIVE and gets_more_bits(weight.layer, layers):
        return recipe.more_bits
    return recipe.base


def _fitting(wanted: GGMLQuantizationType, row: int) -> GGMLQuantizationType:
    if row % block_length(wanted) == 0:
        return wanted
    instead = FALLBACK.get(wanted, F16)
    return instead if row % block_length(instead) == 0 else F16


def gets_more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def block_length(kind: GGMLQuantizationType) -> int:
    """Weights a block."""
    return GGML_QUANT_SIZES[kind][0]


def row_bytes(kind: GGMLQuantizationType, row: int) -> int:
    """Bytes that a row of so many weights takes."""
    length, size = GGML_QUANT_SIZES[kind]
    return row // length * size
