"""`SamplingParams`: how the next token is sampled, with all defaults.

llama.cpp's sampler chain is built from them. From the logits of a row to a token:

1. `logit_bias` is added.
2. The stages of `samplers`, in its order. By default: `penalties` (repeat, presence, frequency),
   `dry`, `top_k`, `typical_p`, `top_p`, `min_p`, `xtc`, `temperature`. A stage that is not named
   is off; each sees the candidates and probabilities that the previous ones left.
3. A token is drawn from the softmax of the remaining candidates.

At temperature 0 the most probable token after the bias, `penalties` and `dry` is taken, without the
other stages. Mirostat 2 replaces the draw and the stages that remove candidates (top_k, typical_p,
top_p, min_p, xtc).
"""

from __future__ import annotations

import copy
import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from typing_extensions import Unpack

from edgesppo.errors import UsageError
from edgesppo.sampling import options
from edgesppo.sampling.fields import (
    MAX_INT,
    Biases,
    Choice,
    Integer,
    Names,
    Number,
    OptionalInteger,
    Strings,
    Tokens,
)
from edgesppo.system import validate

# llama.cpp takes 2^32 - 1 to mean "choose one for me", which would make a run unrepeatable.
MAX_SEED = 2**32 - 2
MAX_LOGPROBS = 20
_ID_DIGITS = 9  # of a token id in JSON: more are no id, and thousands of them no int
STAGES: tuple[str, ...] = get_args(options.Stage)
# Below this temperature the logits, divided by it, overflow llama.cpp's bucket sort.
MIN_TEMPERATURE = 1e-4


@dataclass(frozen=True, repr=False)
class SamplingParams:
    """How an answer is sampled. Raises UsageError, naming the parameter, for an invalid value.

    The defaults are those that the published SPPO models were evaluated with: temperature 0.7,
    top-p 0.9, at most 2048 new tokens (https://arxiv.org/abs/2405.00675, section 5). The recent
    tokens that penalties and DRY consider include those of the prompt. `logit_bias` is a mapping
    from token id to bias; `max_tokens` counts the tokens of the answer.
    """

    temperature: float = Number(
        "how random; 0: the most probable token", MIN_TEMPERATURE, 100, also=0
    ).field(0.7)
    top_k: int = Integer("keep the k most probable tokens; 0: all", 0, MAX_INT).field(0)
    top_p: float = Number("keep the most probable tokens that sum to p; 1: all", 0, 1).field(0.9)
    min_p: float = Number("keep tokens at least p times as probable as the best", 0, 1).field(0.0)
    typical_p: float = Number(
        "keep the tokens nearest to the expected surprise that sum to p; 1: all", 0, 1
    ).field(1.0)
    xtc_probability: float = Number(
        "how often XTC removes all but the least probable token above its threshold", 0, 1
    ).field(0.0)
    xtc_threshold: float = Number(
        "the probability from which XTC removes tokens; above 0.5: off", 0, 1
    ).field(0.1)
    repeat_penalty: float = Number(
        "divide the logits of recent tokens by this, multiply negative ones; 1: off", 0.01, 100
    ).field(1.0)
    presence_penalty: float = Number(
        "subtract this from the logit of every recent token", -2, 2
    ).field(0.0)
    frequency_penalty: float = Number(
        "subtract this for each time the token is among the recent ones", -2, 2
    ).field(0.0)
    repeat_last_n: int = Integer(
        "how many recent tokens the three penalties cover", 0, MAX_INT
    ).field(64)
    dry_multiplier: float = Number(
        "DRY: subtract multiplier * base^(n - allowed length) from the logit of a token that "
        "would prolong a repetition of n tokens; 0: off",
        *(0, 100),
    ).field(0.0)
    dry_base: float = Number("DRY's base", 1, 100).field(1.75)
    dry_allowed_length: int = Integer(
        "the shortest repetition that DRY penalises", 1, MAX_INT
    ).field(2)
    dry_penalty_last_n: int = Integer(
        "how many recent tokens DRY covers; -1: the whole context", -1, MAX_INT
    ).field(-1)
    dry_sequence_breakers: tuple[str, ...] = Strings(
        "DRY counts no repetition across this text; repeatable; '' alone: none",
        most=32,
        # llama.cpp silently cuts them at 20 tokens.
        most_bytes=20,
    ).field(("\n", ":", '"', "*"))
    mirostat: int = Choice(
        "2: Mirostat 2.0 instead of the stages that remove tokens; 0: off", (0, 2)
    ).field(0)
    mirostat_tau: float = Number("the surprise that Mirostat aims at, in bits", 0, 100).field(5.0)
    mirostat_eta: float = Number("how fast Mirostat adapts", 0, 1).field(0.1)
    logit_bias: tuple[tuple[int, float], ...] = Biases(
        "add BIAS to this token's logit; repeatable; -100 practically bans it", -100, 100
    ).field(())
    samplers: tuple[str, ...] = Names(
        "the sampler stages, in order; a stage that is not named is off", STAGES
    ).field(STAGES)
    seed: int | None = OptionalInteger(
        "same seed, same answer", 0, MAX_SEED, without="random"
    ).field(None)
    max_tokens: int = Integer("the longest answer, in tokens", 1, MAX_INT).field(2048)
    stop: tuple[str, ...] = Strings("end the answer before this text; repeatable").field(())
    stop_tokens: tuple[int, ...] = Tokens("end the answer before these tokens").field(())
    logprobs: int | None = OptionalInteger(
        "log-probabilities of each token, and of this many of the most probable ones",
        0,
        MAX_LOGPROBS,
    ).field(None)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = field.metadata["kind"].check(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    def replace(self, **changes: Unpack[options.SamplingOptions]) -> SamplingParams:
        """A copy with some values changed. Raises UsageError for unknown names and bad values."""
        options.check_names(changes)
        found: dict[str, Any] = {**changes}
        return dataclasses.replace(self, **found) if found else self

    def __repr__(self) -> str:
        """Only what differs from the defaults."""
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        changed = (f"{field.name}={v!r}" for field, v in values if v != field.default)
        return f"SamplingParams({', '.join(changed)})"

    def with_seed(self) -> SamplingParams:
        """These parameters with a random seed if they have none, so that a result can report it."""
        if self.seed is not None:
            return self
        seeded = copy.copy(self)  # the other values have been checked
        object.__setattr__(seeded, "seed", secrets.randbelow(MAX_SEED + 1))
        return seeded

    def with_seed_after(self, n: int) -> SamplingParams:
        """These parameters with the `n`-th seed after theirs, if they have one."""
        return self if self.seed is None else self.replace(seed=(self.seed + n) % (MAX_SEED + 1))


# After the decorator, which writes the method.
SamplingParams.__init__ = validate.suggests_keywords(SamplingParams.__init__)  # type: ignore[method-assign]


def valid_values(saved: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The valid ones of parameters that were saved as JSON, and what is wrong with the others."""
    valid, complaints = {}, []
    for name, value in saved.items():
        if name == "logit_bias":
            value = biases_of_json(value)
        changes: dict[str, Any] = {name: value}
        try:
            SamplingParams().replace(**changes)
        except UsageError as error:
            complaints.append(str(error))
        else:
            valid[name] = value
    return valid, complaints


def biases_of_json(value: Any) -> Any:
    """`logit_bias` from JSON as pairs of a token id and a bias; an object's keys are strings there.

    What is not such an object is returned as it is: it is checked with the other parameters.
    """
    if not isinstance(value, Mapping):
        return value
    return [
        (int(key) if key.isdecimal() and len(key) <= _ID_DIGITS else key, bias)
        for key, bias in value.items()
    ]
