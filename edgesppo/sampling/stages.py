"""Turn sampling parameters into the stages of llama.cpp's sampler chain, first to last.

A stage that would change nothing is left out. To add a stage, extend `_BUILDERS` and
`params.STAGES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgesppo.errors import UsageError
from edgesppo.sampling.params import MAX_SEED, SamplingParams
from edgesppo.system import notices, validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The stages that remove no candidate: the only ones that Mirostat and temperature 0 use.
_KEEPS_ALL = ("penalties", "dry", "temperature")
_KEEP_ONE = 1
# llama.cpp's typical sampler computes 0 log 0 as NaN. Tokens of less than this share of the best
# one's probability are removed before it: even 256,000 of them add nothing to the entropy.
_NEGLIGIBLE = 1e-30


class Vocabulary(Protocol):
    """What a stage needs to know about the model."""

    @property
    def n_vocab(self) -> int:
        """The number of tokens."""


class Stage(NamedTuple):
    """One of llama.cpp's samplers, `llama_sampler_init_SAMPLER(*args)`, as part of stage `name`.

    `looks_back` is the number of the prompt's last tokens that the sampler must accept before the
    first draw; all samplers accept the tokens that are drawn.
    """

    name: str
    sampler: str
    args: tuple[Any, ...]
    looks_back: int = 0


def stages(params: SamplingParams, vocabulary: Vocabulary, n_ctx: int) -> list[Stage]:
    """The samplers of the chain, first to last. Grammars belong right after the bias."""
    _check_ids(params, vocabulary.n_vocab)
    result = []
    if params.logit_bias:
        result.append(Stage("logit_bias", "logit_bias", (vocabulary.n_vocab, params.logit_bias)))
    names = params.samplers
    if params.mirostat or params.temperature == 0:
        names = tuple(name for name in names if name in _KEEPS_ALL)
    for name in names:
        result += _BUILDERS[name](params, vocabulary, n_ctx)
    return [*result, _draw(params)]


def first_cut(found: Sequence[Stage]) -> int | None:
    """The index of the first stage that removes candidates; None if none does."""
    keeps = (*_KEEPS_ALL, "logit_bias", "draw")
    return next((at for at, stage in enumerate(found) if stage.name not in keeps), None)


def within_vocabulary(sampling: Mapping[str, Any], n_vocab: int) -> dict[str, Any]:
    """Valid parameters without the tokens that a vocabulary lacks, and a notice if there are any.

    For a chat that goes on with another model.
    """
    fitting = dict(sampling)
    for name in sorted(sampling.keys() & {"logit_bias", "stop_tokens"}):
        changes: dict[str, Any] = {name: sampling[name]}
        params = SamplingParams().replace(**changes)
        entries, tokens = getattr(params, name), _token_ids(params)[name]
        unknown = [str(token) for token in tokens if token >= n_vocab]
        if unknown:
            pairs = zip(entries, tokens, strict=True)
            fitting[name] = tuple(entry for entry, token in pairs if token < n_vocab)
            notices.notify(
                f"left out of {name}: {', '.join(unknown)}; this model's vocabulary has"
                f" {n_vocab:,} tokens"
            )
    return fitting


def _token_ids(params: SamplingParams) -> dict[str, Sequence[int]]:
    return {
        "logit_bias": [token for token, _ in params.logit_bias],
        "stop_tokens": params.stop_tokens,
    }


def _check_ids(params: SamplingParams, n_vocab: int) -> None:
    for name, tokens in _token_ids(params).items():
        for token in tokens:
            if token >= n_vocab:
                raise UsageError(
                    f"{validate.label(name)} has token {token}, expected ids below {n_vocab}, "
                    "the size of this model's vocabulary"
                )


def _penalties(params: SamplingParams, vocabulary: Vocabulary, n_ctx: int) -> list[Stage]:
    penalties = (params.repeat_penalty, params.frequency_penalty, params.presence_penalty)
    # llama.cpp allocates memory for all of them at once; the context holds no more.
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
    non_zero = Stage("typical_p", "min_p", (_NEGLIGIBLE, _KEEP_ONE))
    return [non_zero, Stage("typical_p", "typical", (params.typical_p, _KEEP_ONE))]


def _top_p(params: SamplingParams, *_: Any) -> list[Stage]:
    return [Stage("top_p", "top_p", (params.top_p, _KEEP_ONE))] if params.top_p < 1 else []


def _min_p(params: SamplingParams, *_: Any) -> list[Stage]:
    return [Stage("min_p", "min_p", (params.min_p, _KEEP_ONE))] if params.min_p else []


def _xtc(params: SamplingParams, *_: Any) -> list[Stage]:
    if not params.xtc_probability:
        return []
    # With the seed of the draw it would use the same random numbers as later draws.
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


_BUILDERS = {
    "penalties": _penalties,
    "dry": _dry,
    "top_k": _top_k,
    "typical_p": _typical_p,
    "top_p": _top_p,
    "min_p": _min_p,
    "xtc": _xtc,
    "temperature": _temperature,
}
