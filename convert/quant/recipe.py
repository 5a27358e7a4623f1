"""Owns the choice of a block type for each tensor: a pure table, checkable by eye.

Follows llama.cpp's `src/llama-quant.cpp` (`llama_tensor_get_type` and what it calls) for the
tensors that Gemma-2 has. The embedding is the output, too (they are tied), and gets its type.

             most    token_embd  attn_v                          ffn_down
    q4_k_m   Q4_K    Q6_K        Q6_K in layers with more bits   Q6_K in layers with more bits
    q4_k_s   Q4_K    Q6_K        Q5_K in the first four layers   Q5_K in the first eighth
    q5_k_m   Q5_K    Q6_K        Q6_K in layers with more bits   Q6_K in layers with more bits
    q5_k_s   Q5_K    Q6_K
    q6_k     Q6_K    Q6_K
    q8_0     Q8_0    Q8_0
    q4_0     Q4_0    Q6_K                                        Q4_1 in the first eighth (2)
    iq4_xs   IQ4_XS  Q6_K        Q5_K (1)                        Q5_K in the first eighth (3)
    f16, bf16, f32   every matrix so

    (1) with four heads or more to a KV head   (2) with an importance matrix   (3) without one

Norms are F32 always. A row that the block length does not divide falls back, see FALLBACK. The
user's overrides come before the table, the fallback after both. Knows nothing of bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

# A block type that needs longer rows -> the one that is used instead, or F16 if that does not fit.
FALLBACK = {Q2_K: Q4_0, Q3_K: Q4_0, Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0, IQ4_XS: IQ4_NL}
PLAIN = frozenset((F32, F16, BF16))
# What an override may ask for: every type that does without an importance matrix.
OVERRIDES = {
    kind.name.lower(): kind
    for kind in (
        *(Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, IQ4_NL, IQ4_XS),
        *(F16, BF16, F32),
    )
}


@dataclass(frozen=True)
class Setting:
    """What the choice depends on beside the tensor."""

    layers: int
    heads_per_kv: int = 1
    calibrated: bool = False  # is there an importance matrix?


def gets_more_bits(layer: int, setting: Setting) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    eighth = setting.layers // 8
    between = (layer - eighth) % 3 == 2
    return layer < eighth or layer >= 7 * setting.layers // 8 or between


def in_first_eighth(layer: int, setting: Setting) -> bool:
    """The layers whose errors go the longest way."""
    return layer < setting.layers // 8


def in_first_four(layer: int, _: Setting) -> bool:
    """Four layers, however many there are."""
    return layer < 4


def shares_kv(_: int, setting: Setting) -> bool:
    """Many heads read the same values, which are few then."""
    return setting.heads_per_kv >= 4


def _in_first_eighth_calibrated(layer: int, setting: Setting) -> bool:
    return setting.calibrated and in_first_eighth(layer, setting)


def _in_first_eighth_uncalibrated(layer: int, setting: Setting) -> bool:
    return not setting.calibrated and in_first_eighth(layer, setting)


@dataclass(frozen=True)
class Better:
    """Another type for a tensor, in the layers where `applies` says so."""

    kind: GGMLQuantizationType
    applies: Callable[[int, Setting], bool]


@dataclass(frozen=True)
class Recipe:
    """What one `--type` makes of each tensor."""

    file_type: LlamaFileType
    base: GGMLQuantizationType
    embedding: GGMLQuantizationType
    attn_v: Better | None = None
    ffn_down: Better | None = None

    def better(self, role: MODEL_TENSOR) -> Better | None:
        """The exception for tensors of this role."""
        return {MODEL_TENSOR.ATTN_V: self.attn_v, MODEL_TENSOR.FFN_DOWN: self.ffn_down}.get(role)


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
    """The recipe of that name, in any case."""
    try:
        return RECIPES[name.lower()]
    except KeyError:
        raise UsageError(f"no type {name!r}; there are {', '.join(RECIPES)}") from None


@dataclass(frozen=True)
class Override:
    """A type that the user wants for the matrices whose names hold the pattern."""

    pattern: re.Pattern[str]
    kind: GGMLQuantizationType


def parse_override(text: str) -> Override:
    """PATTERN=TYPE, as llama-quantize's `--tensor-type`: a regular expression, in lower case."""
    pattern, _, kind = text.partition("=")
    if not pattern or not kind:
        raise BadOverride(f"the tensor type {text!r} is not of the form PATTERN=TYPE")
    if kind.lower() not in OVERRIDES:
        raise BadOverride(f"no tensor type {kind!r} in {text!r}; there are {', '.join(OVERRIDES)}")
    try:
        return Override(re.compile(pattern.lower()), OVERRIDES[kind.lower()])
    except re.error as error:
        raise BadOverride(f"{pattern!r} is no regular expression: {error}") from None


def block_types(
    recipe: Recipe, weights: Iterable[Weight], setting: Setting, overrides: Sequence[Override] = ()
) -> dict[str, GGMLQuantizationType]:
    """The type of every tensor by its name; `weights` has the layers in order."""
    if overrides and recipe.base in PLAIN:
        raise BadOverride(f"tensor types cannot be given with type {recipe.base.name.lower()}")
    weights = list(weights)
    _check_used(overrides, [weight.name for weight in weights if not weight.is_norm])
    types: dict[str, GGMLQuantizationType] = {}
    turns: Counter[MODEL_TENSOR] = Counter()
    for weight in weights:
        kind = F32 if weight.is_norm else _overridden(weight, overrides)
        if kind is None:
            kind = _wanted(recipe, weight, turns[weight.role], setting)
            turns[weight.role] += 1  # llama.cpp counts these, so an override shifts later layers
        types[weight.name] = _fitting(kind, weight.row)
    return types


def _check_used(overrides: Sequence[Override], names: list[str]) -> None:
    """Refuse a pattern that decides nothing: no name has it, or another before it has each."""
    undecided = set(names)
    for n, override in enumerate(overrides):
        fitting = {name for name in names if override.pattern.search(name)}
        pattern = override.pattern.pattern
        if not fitting:
            raise BadOverride(
                f"no matrix has a name with {pattern!r}; names are such as {names[0]}, {names[-1]}"
            )
        if not fitting & undecided:
            before = (o.pattern for o in overrides[:n])
            earlier = [p.pattern for p in before if any(map(p.search, fitting))]
            raise BadOverride(
                f"the pattern {pattern!r} decides nothing: the first that fits a name does, and"
                f" {', '.join(map(repr, earlier))} before it fits every name that it does; give it"
                " first, or leave it out"
            )
        undecided -= fitting


def _overridden(weight: Weight, overrides: Sequence[Override]) -> GGMLQuantizationType | None:
    """What the first override that fits asks for."""
    fitting = (o.kind for o in overrides if o.pattern.search(weight.name))
    return next(fitting, None)


def _wanted(recipe: Recipe, weight: Weight, turn: int, setting: Setting) -> GGMLQuantizationType:
    if weight.role is MODEL_TENSOR.TOKEN_EMBD:
        fits = weight.row % block_length(recipe.base) == 0
        return recipe.embedding if fits else Q8_0
    better = recipe.better(weight.role)
    return better.kind if better and better.applies(turn, setting) else recipe.base


def _fitting(wanted: GGMLQuantizationType, row: int) -> GGMLQuantizationType:
    if row % block_length(wanted) == 0:
        return wanted
    instead = FALLBACK.get(wanted, F16)
    return instead if row % block_length(instead) == 0 else F16


def block_length(kind: GGMLQuantizationType) -> int:
    """Weights a block."""
    return GGML_QUANT_SIZES[kind][0]


def row_bytes(kind: GGMLQuantizationType, row: int) -> int:
    """Bytes that a row of so many weights takes."""
    length, size = GGML_QUANT_SIZES[kind]
    return row // length * size
