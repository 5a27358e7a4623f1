"""Sampling parameters as the stages of llama.cpp's sampler chain, first to last.

A stage that would change nothing is left out. Add one here, in `_STAGE` and in `params.STAGES`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from edgesppo.errors import UsageError
from edgesppo.sampling.params import MAX_SEED, SamplingParams
from edgesppo.system import validate

# The stages that leave no candidate out: all that mirostat and temperature 0 have use for.
_SHIFTS = ("penalties", "dry", "temperature")
_KEEP_ONE = 1
# llama.cpp's typical sampler takes 0 log 0 for NaN. What it is spared here adds nothing to the
# entropy: 256,000 tokens of this share of the best one's probability.
_NOTHING = 1e-30


class Vocabulary(Protocol):
    """What a stage must know of the model."""

    @property
    def n_vocab(self) -> int:
        """How many tokens there are."""


class Stage(NamedTuple):
    """One of llama.cpp's samplers, `llama_sampler_init_SAMPLER(*args)`, and whose stage it is.

    `looks_back` says how many of the prompt's last tokens it must be told of before the first
    draw; the tokens drawn are told to all.
    """

    name: str
    sampler: str
    args: tuple[Any, ...]
    looks_back: int = 0


def stages(params: SamplingParams, vocabulary: Vocabulary, n_ctx: int) -> list[Stage]:
    """The chain's samplers, first to last. What forbids tokens belongs behind the bias."""
    _check_ids(params, vocabulary.n_vocab)
    made = []
    if params.logit_bias:
        made.append(Stage("logit_bias", "logit_bias", (vocabulary.n_vocab, params.logit_bias)))
    named = params.samplers
    if params.mirostat or params.temperature == 0:
        named = tuple(name for name in named if name in _SHIFTS)
    for name in named:
        made += _STAGE[name](params, vocabulary, n_ctx)
    return [*made, _draw(params)]


def _check_ids(params: SamplingParams, n_vocab: int) -> None:
    named = {
        "logit_bias": [token for token, _ in params.logit_bias],
        "stop_tokens": params.stop_tokens,
    }
    for name, tokens in named.items():
        for token in tokens:
            if token >= n_vocab:
                raise UsageError(
                    f"{validate.label(name)} has token {token}, expected ids below {n_vocab}, "
                    "the size of this model's vocabulary"
                )


def _penalties(params: SamplingParams, vocabulary: Vocabulary, n_ctx: int) -> list[Stage]:
    penalties = (params.repeat_penalty, params.frequency_penalty, params.presence_penalty)
    # llama.cpp takes the memory for them at once; there are never more than the context.
    recent = min(params.repeat_last_n, n_ctx)
    if penalties == (1, 0, 0) or not recent:
        return []
    return [Stage("penalties", "penalties", (vocabulary.n_vocab, recent, *penalties), recent)]


def _dry(params: SamplingParams, vocabulary: Vocabulary, n_ctx: int) -> list[Stage]:
    whole = params.dry_penalty_last_n < 0
    recent = n_ctx if whole else min(params.dry_penalty_last_n, n_ctx)
    if not params.dry_multiplier or not recent:
        return []
    shape = (params.dry_multiplier, params.dry_base, params.dry_allowed_length)
    args = (vocabulary, *shape, recent, params.dry_sequence_breakers)
    return [Stage("dry", "dry", args, recent)]


def _top_k(params: SamplingParams, *_: Any) -> list[Stage]:
    return [Stage("top_k", "top_k", (params.top_k,))] if params.top_k else []


def _typical_p(params: SamplingParams, *_: Any) -> list[Stage]:
    if params.typical_p >= 1:
        return []
    possible = Stage("typical_p", "min_p", (_NOTHING, _KEEP_ONE))
    return [possible, Stage("typical_p", "typical", (params.typical_p, _KEEP_ONE))]


def _top_p(params: SamplingParams, *_: Any) -> list[Stage]:
    return [Stage("top_p", "top_p", (params.top_p, _KEEP_ONE))] if params.top_p < 1 else []


def _min_p(params: SamplingParams, *_: Any) -> list[Stage]:
    return [Stage("min_p", "min_p", (params.min_p, _KEEP_ONE))] if params.min_p else []


def _xtc(params: SamplingParams, *_: Any) -> list[Stage]:
    if not params.xtc_probability:
        return []
    # With the draw's own seed its chances would be the numbers that later draws are made with.
    seed = (_seed(params) + MAX_SEED // 2) % (MAX_SEED + 1)
    args = (params.xtc_probability, params.xtc_threshold, _KEEP_ONE, seed)
    return [Stage("xtc", "xtc", args)]


def _temperature(params: SamplingParams, *_: Any) -> list[Stage]:
    if params.temperature in (0, 1):
        return []
    return [Stage("temperature", "temp", (params.temperature,))]


def _draw(params: SamplingParams) -> Stage:
    if params.temperature == 0:
        return Stage("draw", "greedy", ())
    if params.mirostat:
        surprise = (params.mirostat_tau, params.mirostat_eta)
        return Stage("draw", "mirostat_v2", (_seed(params), *surprise))
    return Stage("draw", "dist", (_seed(params),))


def _seed(params: SamplingParams) -> int:
    return params.with_seed().seed or 0


_STAGE = {
    "penalties": _penalties,
    "dry": _dry,
    "top_k": _top_k,
    "typical_p": _typical_p,
    "top_p": _top_p,
    "min_p": _min_p,
    "xtc": _xtc,
    "temperature": _temperature,
}
