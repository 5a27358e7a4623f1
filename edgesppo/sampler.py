"""Owns how the next token is chosen: `SamplingParams`, the one home of every default, and the
chain of llama.cpp's samplers that is built from it. Knows nothing of text.

The chain, in order: repeat penalty, top-k, top-p, min-p, temperature, draw. Temperature 0 takes
the most probable token after the penalty and leaves the rest out.
"""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo import checks
from edgesppo.errors import UsageError

if TYPE_CHECKING:
    from edgesppo._llama import SamplerChain

# llama.cpp takes 2^32 - 1 to mean "choose one for me", which would make a run unrepeatable.
MAX_SEED = 2**32 - 2
_KEEP_ONE = 1


def _number(
    low: float, high: float, default: float | None, text: str, *, whole: bool = False
) -> Any:
    limits = {"low": low, "high": high, "text": text, "whole": whole}
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is sampled. Raises UsageError, naming the parameter, for a senseless value.

    The defaults are those that the published SPPO models were evaluated with: temperature 0.7,
    top-p 0.9, at most 2048 new tokens (https://arxiv.org/abs/2405.00675, section 5).
    """

    temperature: float = _number(0, 100, 0.7, "0 always takes the most probable token")
    top_k: int = _number(0, 2**31 - 1, 0, "keep the k most probable tokens; 0: all", whole=True)
    top_p: float = _number(0, 1, 0.9, "keep the most probable tokens that sum up to p; 1: all")
    min_p: float = _number(0, 1, 0.0, "keep tokens of at least p times the best's probability")
    repeat_penalty: float = _number(0.01, 100, 1.0, "divide the logits of recent tokens; 1: off")
    repeat_last_n: int = _number(0, 2**31 - 1, 64, "how many recent tokens it covers", whole=True)
    seed: int | None = _number(0, MAX_SEED, None, "same seed, same answer", whole=True)
    max_tokens: int = _number(1, 2**31 - 1, 2048, "the longest answer", whole=True)
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.metadata:
                _check_number(field.name, getattr(self, field.name), field.metadata)
        object.__setattr__(self, "stop", _checked_stops(self.stop))

    def replace(self, **changes: Any) -> SamplingParams:
        """A copy with some values changed; unknown names are refused."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UsageError(f"unknown sampling parameter {name!r}; known: {', '.join(known)}")
        return dataclasses.replace(self, **changes)

    def with_seed(self) -> SamplingParams:
        """The same with the seed drawn, if there was none, so that a result can name it."""
        return self if self.seed is not None else self.replace(seed=secrets.randbelow(MAX_SEED + 1))


def _check_number(name: str, value: Any, limits: Any) -> None:
    if value is None and name == "seed":
        return
    check = checks.whole if limits["whole"] else checks.number
    check(name, value, limits["low"], limits["high"])


def _checked_stops(stop: Any) -> tuple[str, ...]:
    if not isinstance(stop, str | tuple | list):
        raise checks.refused("stop", stop, "strings")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise UsageError(f"stop has {checks.shown(text)}, expected strings that are not empty")
        checks.text("stop", text)
    return stops


def build_chain(params: SamplingParams, n_vocab: int, n_ctx: int) -> SamplerChain:
    """The native chain for `params`. The caller closes it."""
    from edgesppo._llama import SamplerChain

    chain = SamplerChain()
    if params.repeat_penalty != 1.0 and params.repeat_last_n > 0:
        # llama.cpp takes the memory for them at once; there are never more than the context.
        recent = min(params.repeat_last_n, n_ctx)
        chain.add("penalties", n_vocab, recent, params.repeat_penalty, 0.0, 0.0)
    if params.temperature == 0:
        chain.add("greedy")
        return chain
    if params.top_k > 0:
        chain.add("top_k", params.top_k)
    if params.top_p < 1:
        chain.add("top_p", params.top_p, _KEEP_ONE)
    if params.min_p > 0:
        chain.add("min_p", params.min_p, _KEEP_ONE)
    chain.add("temp", params.temperature)
    chain.add("dist", params.with_seed().seed or 0)
    return chain
