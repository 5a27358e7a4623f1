"""The sampling parameters as keyword arguments: their names and types, for editors and checkers.

`SamplingOptions` has the fields of SamplingParams, with the types that a caller may give.
"""

from __future__ import annotations

from collections.abc import (  # noqa: TC003 - typing.get_type_hints looks them up
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Literal, SupportsFloat, SupportsIndex, TypeAlias, TypedDict

from edgesppo.errors import UsageError
from edgesppo.system.suggest import did_you_mean

# Numbers of Python or of NumPy, whose types are not subclasses of Python's.
Number: TypeAlias = float | SupportsFloat
Integer: TypeAlias = int | SupportsIndex
# A stage of sampling, in the default order.
Stage = Literal["penalties", "dry", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"]

# What the parameters are called elsewhere.
_ELSEWHERE = {
    "temp": "temperature",
    "typical": "typical_p",
    "repetition_penalty": "repeat_penalty",
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_length": "max_tokens",
    "n_predict": "max_tokens",
    "top_logprobs": "logprobs",
    "stop_token_ids": "stop_tokens",
    "eos_token_id": "stop_tokens",
    "random_state": "seed",
    "mirostat_mode": "mirostat",
    "response_format": "schema",
    "system_prompt": "system",
    "history": "messages",
}


class SamplingOptions(TypedDict, total=False):
    """How an answer is sampled; `SamplingParams` says what each means, with ranges and defaults."""

    temperature: Number
    top_k: Integer
    top_p: Number
    min_p: Number
    typical_p: Number
    xtc_probability: Number
    xtc_threshold: Number
    repeat_penalty: Number
    presence_penalty: Number
    frequency_penalty: Number
    repeat_last_n: Integer
    dry_multiplier: Number
    dry_base: Number
    dry_allowed_length: Integer
    dry_penalty_last_n: Integer
    dry_sequence_breakers: str | Collection[str]
    mirostat: Literal[0, 2]
    mirostat_tau: Number
    mirostat_eta: Number
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]]
    samplers: Sequence[Stage]
    seed: Integer | None
    max_tokens: Integer
    stop: str | Collection[str]
    stop_tokens: Collection[int]
    logprobs: Integer | None


NAMES = tuple(SamplingOptions.__annotations__)
# What other calls take, and which.
_TAKEN_BY = {
    **dict.fromkeys(("n_ctx", "n_threads", "n_seqs", "gpu", "cache_type", "drafts"), "load()"),
    **dict.fromkeys(("system", "overflow", "messages"), "model.chat()"),
}


def check_names(given: Iterable[str], others: Sequence[str] = ()) -> None:
    """Raise UsageError for a name of no sampling parameter, with the most similar known one.

    `others` are the names of the other arguments that the caller could have meant.
    """
    known = (*NAMES, *others)
    for name in given:
        if name == "stream":
            raise UsageError(
                "there is no stream=: ask() waits for the whole answer; for its pieces: "
                "for chunk in model.stream(TEXT): ... (or chat.stream)"
            )
        if name not in NAMES:
            synonym = _ELSEWHERE.get(name)
            near = f" (did you mean {synonym}?)" if synonym in known else did_you_mean(name, known)
            if name in _TAKEN_BY:
                near = f" ({_TAKEN_BY[name]} takes it)"
            there_are = "" if near else f"; there are {', '.join(known)}"
            raise UsageError(f"no sampling parameter is called {name!r}{near}{there_are}")
