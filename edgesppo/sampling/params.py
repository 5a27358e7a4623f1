"""Owns how the next token is chosen: `SamplingParams`, the one home of every default, and the
chain of llama.cpp's samplers that is built from it. Knows nothing of text.

The chain, from the logits of a row to a token:

1. `logit_bias` is added.
2. The stages of `samplers`, in its order. By default: `penalties` (repeat, presence, frequency),
   `dry`, `top_k`, `typical_p`, `top_p`, `min_p`, `xtc`, `temperature`. A stage that is not named
   is off; each sees the candidates and the probabilities that those before it left.
3. The draw, from the softmax of what is left.

Temperature 0 takes, after the bias, `penalties` and `dry`, the most probable token and leaves the
rest out. Mirostat 2 takes the place of the draw and of the stages that cut (top_k, typical_p,
top_p, min_p, xtc).
"""

from __future__ import annotations

import copy
import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgesppo.errors import UsageError
from edgesppo.sampling.fields import (
    MAX_INT,
    Biases,
    Choice,
    Names,
    Number,
    OptionalWhole,
    Texts,
    Tokens,
    Whole,
)

# llama.cpp takes 2^32 - 1 to mean "choose one for me", which would make a run unrepeatable.
MAX_SEED = 2**32 - 2
MAX_LOGPROBS = 20
STAGES = ("penalties", "dry", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature")
# Below it llama.cpp's bucket sort overflows: logits are soft-capped, but divided by it.
_COLDEST = 1e-4


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is sampled. Raises UsageError, naming the parameter, for a senseless value.

    The defaults are those that the published SPPO models were evaluated with: temperature 0.7,
    top-p 0.9, at most 2048 new tokens (https://arxiv.org/abs/2405.00675, section 5). The recent
    tokens that penalties and DRY look back at are the prompt's, too. `logit_bias` takes a mapping
    from token id to bias.
    """

    temperature: float = Number(
        "0 always takes the most probable token", _COLDEST, 100, also=0
    ).parameter(0.7)
    top_k: int = Whole("keep the k most probable tokens; 0: all", 0, MAX_INT).parameter(0)
    top_p: float = Number("keep the most probable tokens that sum up to p; 1: all", 0, 1).parameter(
        0.9
    )
    min_p: float = Number("keep tokens of at least p times the best's probability", 0, 1).parameter(
        0.0
    )
    typical_p: float = Number(
        "keep the tokens nearest to the expected surprise that sum up to p; 1: all", 0, 1
    ).parameter(1.0)
    xtc_probability: float = Number(
        "how often XTC leaves out all but the last of the tokens above its threshold", 0, 1
    ).parameter(0.0)
    xtc_threshold: float = Number(
        "the probability that makes a token one of those; above 0.5: off", 0, 1
    ).parameter(0.1)
    repeat_penalty: float = Number(
        "divide the logits of recent tokens, multiply negative ones; 1: off", 0.01, 100
    ).parameter(1.0)
    presence_penalty: float = Number(
        "subtract this from the logit of every recent token", -2, 2
    ).parameter(0.0)
    frequency_penalty: float = Number(
        "subtract this as often as the token is among the recent ones", -2, 2
    ).parameter(0.0)
    repeat_last_n: int = Whole("how many recent tokens those three cover", 0, MAX_INT).parameter(64)
    dry_multiplier: float = Number(
        "DRY: subtract multiplier * base^(n - allowed length) from the logit of a token that "
        "would prolong a repetition of n tokens; 0: off",
        *(0, 100),
    ).parameter(0.0)
    dry_base: float = Number("DRY's base", 1, 100).parameter(1.75)
    dry_allowed_length: int = Whole("the shortest repetition DRY minds", 1, MAX_INT).parameter(2)
    dry_penalty_last_n: int = Whole(
        "how many recent tokens DRY looks at; -1: the whole context", -1, MAX_INT
    ).parameter(-1)
    dry_sequence_breakers: tuple[str, ...] = Texts(
        "no repetition reaches across this text; repeatable; '' alone: none",
        most=32,
        # llama.cpp cuts them at 20 tokens, and says nothing.
        most_bytes=20,
    ).parameter(("\n", ":", '"', "*"))
    mirostat: int = Choice("2: Mirostat 2.0 instead of the cutting stages", (0, 2)).parameter(0)
    mirostat_tau: float = Number("the surprise it aims at, in bits", 0, 100).parameter(5.0)
    mirostat_eta: float = Number("how fast it learns", 0, 1).parameter(0.1)
    logit_bias: tuple[tuple[int, float], ...] = Biases(
        "add BIAS to this token's logit; repeatable; -100 as good as bans", -100, 100
    ).parameter(())
    samplers: tuple[str, ...] = Names(
        "the stages in their order; a stage that is not named is off", STAGES
    ).parameter(STAGES)
    seed: int | None = OptionalWhole(
        "same seed, same answer", 0, MAX_SEED, without="random"
    ).parameter(None)
    max_tokens: int = Whole("the longest answer", 1, MAX_INT).parameter(2048)
    stop: tuple[str, ...] = Texts("end the answer before this text; repeatable").parameter(())
    stop_tokens: tuple[int, ...] = Tokens("end the answer before these tokens").parameter(())
    logprobs: int | None = OptionalWhole(
        "log-probabilities of each token and of so many of the most probable ones", 0, MAX_LOGPROBS
    ).parameter(None)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = field.metadata["kind"].checked(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    def replace(self, **changes: Any) -> SamplingParams:
        """A copy with some values changed; unknown names are refused."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UsageError(f"unknown sampling parameter {name!r}; known: {', '.join(known)}")
        return dataclasses.replace(self, **changes) if changes else self

    def with_seed(self) -> SamplingParams:
        """The same with the seed drawn, if there was none, so that a result can name it."""
        if self.seed is not None:
            return self
        seeded = copy.copy(self)  # all else was checked when this one was made
        object.__setattr__(seeded, "seed", secrets.randbelow(MAX_SEED + 1))
        return seeded


def sensible(kept: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Of parameters that were kept as JSON, those that make sense; and what is wrong with others.

    What a mapping of token ids has for keys are texts there.
    """
    found, complaints = {}, []
    for name, value in kept.items():
        if name == "logit_bias" and isinstance(value, Mapping):
            ids = {int(key) if key.isdecimal() and len(key) < 10 else key: key for key in value}
            value = {token: value[key] for token, key in ids.items()}
        try:
            SamplingParams().replace(**{name: value})
        except UsageError as error:
            complaints.append(str(error))
        else:
            found[name] = value
    return found, complaints
