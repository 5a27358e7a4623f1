"""The recipes: which block type each tensor gets for each `--type`.

Follows llama.cpp's `src/llama-quant.cpp` (`llama_tensor_get_type` and what it calls) for the
tensors that Gemma-2 has. The embedding is tied to the output, and gets the output's type.

             most    token_embd  attn_v                          ffn_down
    q4_k_m   Q4_K    Q6_K        Q6_K in layers with more bits   Q6_K in layers with more bits
    q4_k_s   Q4_K    Q6_K        Q5_K in the first four layers   Q5_K in the first eighth
    q5_k_m   Q5_K    Q6_K        Q6_K in layers with more bits   Q6_K in layers with more bits
    q5_k_s   Q5_K    Q6_K
    q6_k     Q6_K    Q6_K
    q8_0     Q8_0    Q8_0
    q4_0     Q4_0    Q6_K                                        Q4_1 in the first eighth (2)
    iq4_xs   IQ4_XS  Q6_K        Q5_K (1)                        Q5_K in the first eighth (3)
    f16, bf16, f32   every matrix in that type

    (1) with four or more heads per KV head   (2) with an importance matrix   (3) without one

Norms are always F32. The user's overrides go before the table. A row whose length is no multiple of
the block length gets a fallback type in the end, see FALLBACK.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gguf import GGML_QUANT_SIZES, MODEL_TENSOR, GGMLQuantizationType, LlamaFileType

from edgesppo.errors import BadOverride, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgesppo_convert.gemma2.architecture import Weight

F32, F16, BF16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16
Q4_0, Q4_1 = GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1
Q5_0, Q5_1 = GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q5_1
Q8_0 = GGMLQuantizationType.Q8_0
Q2_K, Q3_K = GGMLQuantizationType.Q2_K, GGMLQuantizationType.Q3_K
Q4_K, Q5_K = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_K
Q6_K = GGMLQuantizationType.Q6_K
IQ4_NL, IQ4_XS = GGMLQuantizationType.IQ4_NL, GGMLQuantizationType.IQ4_XS

# Block type -> the type for rows that its block length does not divide; F16 if that one's does not.
FALLBACK = {Q2_K: Q4_0, Q3_K: Q4_0, Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0, IQ4_XS: IQ4_NL}
PLAIN = frozenset((F32, F16, BF16))
CHUNK = 1 << 19  # weights that are converted at a time; a longer row is a chunk of its own
# What an override may ask for: every type that does not need an importance matrix.
OVERRIDES = {
    kind.name.lower(): kind
    for kind in (
        *(Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, IQ4_NL, IQ4_XS),
        *(F16, BF16, F32),
    )
}


@dataclass(frozen=True)
class Setting:
    """What the choice of types depends on besides the tensor."""

    layers: int
    heads_per_kv: int = 1
    calibrated: bool = False  # is there an importance matrix?


def gets_more_bits(layer: int, setting: Setting) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    eighth = setting.layers // 8
    between = (layer - eighth) % 3 == 2
    return layer < eighth or layer >= 7 * setting.layers // 8 or between


def in_first_eighth(layer: int, setting: Setting) -> bool:
    """The first eighth of the layers, whose errors pass through all others."""
    return layer < setting.layers // 8


def in_first_four(layer: int, _: Setting) -> bool:
    """The first four layers, however many there are."""
    return layer < 4


def shares_kv(_: int, setting: Setting) -> bool:
    """Four or more heads share a KV head, so that the values are few and matter more."""
    return setting.heads_per_kv >= 4


def _in_first_eighth_calibrated(layer: int, setting: Setting) -> bool:
    return setting.calibrated and in_first_eighth(layer, setting)


def _in_first_eighth_uncalibrated(layer: int, setting: Setting) -> bool:
    return not setting.calibrated and in_first_eighth(layer, setting)


@dataclass(frozen=True)
class Better:
    """A better type for a tensor, in the layers for which `applies` is true."""

    kind: GGMLQuantizationType
    applies: Callable[[int, Setting], bool]


@dataclass(frozen=True)
class Recipe:
    """The block types of one `--type`."""

    file_type: LlamaFileType
    base: GGMLQuantizationType
    embedding: GGMLQuantizationType
    attn_v: Better | None = None
    ffn_down: Better | None = None

    def better(self, role: MODEL_TENSOR) -> Better | None:
        """The better type for tensors of this role, if any."""
        return {MODEL_TENSOR.ATTN_V: self.attn_v, MODEL_TENSOR.FFN_DOWN: self.ffn_down}.get(role)


RecipeName = Literal[
    "q4_k_m", "q4_k_s", "q5_k_m", "q5_k_s", "q6_k", "q8_0", "q4_0", "iq4_xs", "f16", "bf16", "f32"
]

_MORE_BITS = Better(Q6_K, gets_more_bits)
RECIPES = {
    "q4_k_m": Recipe(LlamaFileType.MOSTLY_Q4_K_M, Q4_K, Q6_K, _MORE_BITS, _MORE_BITS),
    "q4_k_s": Recipe(
        *(LlamaFileType.MOSTLY_Q4_K_S, Q4_K, Q6_K),
        attn_v=Better(Q5_K, in_first_four),
        ffn_down=Better(Q5_K, in_first_eighth),
    ),
    "q5_k_m": Recipe(LlamaFileType.MOSTLY_Q5_K_M, Q5_K, Q6_K, _MORE_BITS, _MORE_BITS),
    "q5_k_s": Recipe(LlamaFileType.MOSTLY_Q5_K_S, Q5_K, Q6_K),
    "q6_k": Recipe(LlamaFileType.MOSTLY_Q6_K, Q6_K, Q6_K),
    "q8_0": Recipe(LlamaFileType.MOSTLY_Q8_0, Q8_0, Q8_0),
    "q4_0": Recipe(
        *(LlamaFileType.MOSTLY_Q4_0, Q4_0, Q6_K),
        ffn_down=Better(Q4_1, _in_first_eighth_calibrated),
    ),
    "iq4_xs": Recipe(
        *(LlamaFileType.MOSTLY_IQ4_XS, IQ4_XS, Q6_K),
        attn_v=Better(Q5_K, shares_kv),
        ffn_down=Better(Q5_K, _in_first_eighth_uncalibrated),
    ),
    "f16": Recipe(LlamaFileType.MOSTLY_F16, F16, F16),
    "bf16": Recipe(LlamaFileType.MOSTLY_BF16, BF16, BF16),
    "f32": Recipe(LlamaFileType.ALL_F32, F32, F32),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, upper or lower case; UsageError if there is none."""
    if not isinstance(name, str) or name.lower() not in RECIPES:
        raise UsageError(f"unknown type {name!r}; expected one of {', '.join(RECIPES)}")
    return RECIPES[name.lower()]


@dataclass(frozen=True)
class Override:
    """A block type that the user wants for the matrices whose names match a pattern."""

    pattern: re.Pattern[str]
    kind: GGMLQuantizationType


def parse_override(text: str) -> Override:
    """Parse PATTERN=TYPE, as llama-quantize's `--tensor-type`; PATTERN is a regular expression."""
    pattern, _, kind = text.partition("=")
    if not pattern or not kind:
        raise BadOverride(
            f"the tensor type {text!r} is not of the form PATTERN=TYPE, as in attn_v=q8_0"
        )
    if kind.lower() not in OVERRIDES:
        raise BadOverride(
            f"unknown tensor type {kind!r} in {text!r}; expected one of {', '.join(OVERRIDES)}"
        )
    try:
        return Override(re.compile(pattern.lower()), OVERRIDES[kind.lower()])
    except re.error as error:
        raise BadOverride(f"{pattern!r} in {text!r} is not a regular expression: {error}") from None


def block_types(
    recipe: Recipe, weights: Iterable[Weight], setting: Setting, overrides: Sequence[Override] = ()
) -> dict[str, GGMLQuantizationType]:
    """The block type of every tensor by name; `weights` must have the layers in order."""
    if overrides and recipe.base in PLAIN:
        raise BadOverride(
            f"type {recipe.base.name.lower()} is the same for all matrices, so it takes no"
            " tensor types; leave them out, or choose a quantised type"
        )
    weights = list(weights)
    _check_have_effect(overrides, [weight.name for weight in weights if not weight.is_norm])
    types: dict[str, GGMLQuantizationType] = {}
    counts: Counter[MODEL_TENSOR] = Counter()
    for weight in weights:
        kind = F32 if weight.is_norm else _overridden(weight, overrides)
        if kind is None:
            kind = _type_by_recipe(recipe, weight, counts[weight.role], setting)
            counts[weight.role] += 1  # only here, as in llama.cpp: an override shifts later layers
        types[weight.name] = _with_fallback(kind, weight.row)
    return types


def _check_have_effect(overrides: Sequence[Override], names: list[str]) -> None:
    """Refuse a pattern without effect: it matches nothing that earlier ones do not match."""
    undecided = set(names)
    for n, override in enumerate(overrides):
        matched = {name for name in names if override.pattern.search(name)}
        pattern = override.pattern.pattern
        if not matched:
            raise BadOverride(
                f"the pattern {pattern!r} matches no matrix; expected names like {names[0]} and"
                f" {names[-1]}"
            )
        if not matched & undecided:
            before = (o.pattern for o in overrides[:n])
            earlier = [p.pattern for p in before if any(map(p.search, matched))]
            raise BadOverride(
                f"the pattern {pattern!r} has no effect: the first pattern that matches a name"
                f" counts, and {', '.join(map(repr, earlier))} before it matches every name that"
                " it does; give it first, or leave it out"
            )
        undecided -= matched


def _overridden(weight: Weight, overrides: Sequence[Override]) -> GGMLQuantizationType | None:
    """The type of the first override that matches, if any."""
    matching = (o.kind for o in overrides if o.pattern.search(weight.name))
    return next(matching, None)


def _type_by_recipe(
    recipe: Recipe, weight: Weight, index: int, setting: Setting
) -> GGMLQuantizationType:
    if weight.role is MODEL_TENSOR.TOKEN_EMBD:
        fits = weight.row % block_length(recipe.base) == 0
        return recipe.embedding if fits else Q8_0
    better = recipe.better(weight.role)
    return better.kind if better and better.applies(index, setting) else recipe.base


def _with_fallback(wanted: GGMLQuantizationType, row: int) -> GGMLQuantizationType:
    if row % block_length(wanted) == 0:
        return wanted
    fallback = FALLBACK.get(wanted, F16)
    return fallback if row % block_length(fallback) == 0 else F16


def block_length(kind: GGMLQuantizationType) -> int:
    """Weights per block."""
    return GGML_QUANT_SIZES[kind][0]


def row_bytes(kind: GGMLQuantizationType, row: int) -> int:
    """Bytes of a row of `row` weights."""
    length, size = GGML_QUANT_SIZES[kind]
    return row // length * size


def rows_per_chunk(row: int) -> int:
    """Number of whole rows of this length that are converted at a time."""
    return max(1, CHUNK // row)
