"""The published definitions of every sampling stage in numpy, and tests of draws against them.

Only `Draws` uses llama.cpp. A row of logits is float64 [n], -inf for candidates that were cut. A
distribution is float64 [n].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesppo.llama.sampler_chain import CANDIDATE
from edgesppo.sampling.params import STAGES, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from edgesppo.llama.sampler_chain import NucleusChain, SamplerChain

# A normal deviate that is exceeded by chance once in 30,000 times.
LARGEST_Z = 4.0
_FEWEST = 5  # expected draws in a bin; the chi-square test needs that many


class Draws:
    """Applies a sampler chain to fixed logits, without accepting the drawn tokens."""

    def __init__(self, chain: SamplerChain | NucleusChain, logits: Sequence[float]) -> None:
        self._chain = chain
        self.n = len(logits)
        self._fresh = np.zeros(self.n, CANDIDATE)
        self._fresh["id"], self._fresh["logit"] = np.arange(self.n), logits

    def one(self) -> int:
        """Draw one token."""
        rows = self._fresh.copy()
        _, chosen = self._chain.apply(rows)
        return int(rows["id"][chosen])

    def counts(self, n: int) -> np.ndarray:
        """How often each token was drawn in `n` draws, int64 [n_tokens]."""
        return np.bincount([self.one() for _ in range(n)], minlength=self.n)

    def distribution(self) -> np.ndarray:
        """The probabilities of the tokens; 0 for those that were cut."""
        return self.one_with_distribution()[1]

    def one_with_distribution(self) -> tuple[int, np.ndarray]:
        """Draw one token; return it and the probabilities."""
        rows = self._fresh.copy()
        n, chosen = self._chain.apply(rows)
        found = np.zeros(self.n)
        found[rows["id"][:n]] = rows["p"][:n]
        return int(rows["id"][chosen]), found


def z_score(counts: np.ndarray, expected: np.ndarray) -> float:
    """The chi-square test of draws against probabilities, as a normal deviate (Wilson-Hilferty).

    Infinite if a token of probability 0 was drawn.
    """
    wanted = expected * counts.sum()
    if counts[wanted == 0].any():
        return math.inf
    order = np.argsort(-wanted)
    bins: list[list[float]] = [[0.0, 0.0]]
    for token in order[wanted[order] > 0]:
        if bins[-1][1] >= _FEWEST:
            bins.append([0.0, 0.0])
        bins[-1][0] += counts[token]
        bins[-1][1] += wanted[token]
    if len(bins) > 1 and bins[-1][1] < _FEWEST:
        last = bins.pop()
        bins[-1] = [bins[-1][0] + last[0], bins[-1][1] + last[1]]
    square = sum((found - want) ** 2 / want for found, want in bins)
    freedom = len(bins) - 1
    if not freedom:
        return 0.0
    spread = 2 / (9 * freedom)
    return float(((square / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))


def uniform(token: int, expected: np.ndarray, rng: np.random.Generator) -> float:
    """The position of a drawn token in its distribution, most probable first, from 0 to 1.

    Over draws from many distributions it is uniform if each draw follows its distribution.
    """
    own = expected[token]
    return float(expected[expected > own].sum() + rng.random() * own)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 [n] -> float64 [n]."""
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def exact(
    params: SamplingParams,
    logits: Sequence[float],
    recent: Sequence[int] = (),
    breakers: Collection[int] = (),
) -> np.ndarray:
    """The distribution of the next token after `recent`, by definition; not for Mirostat.

    `breakers` are the tokens that contain one of DRY's sequence breakers.
    """
    row = np.array(logits, dtype=np.float64)
    for token, bias in params.logit_bias:
        row[token] += bias
    names = params.samplers
    if params.temperature == 0:
        names = tuple(name for name in names if name in ("penalties", "dry"))
    branches = [(1.0, row)]
    for name in names:
        branches = [
            (weight * share, after)
            for weight, before in branches
            for share, after in _stage(name, params, before, recent, breakers)
        ]
    if params.temperature == 0:
        ((_, row),) = branches
        return np.asarray(np.arange(row.size) == row.argmax(), dtype=np.float64)
    return np.asarray(sum(weight * softmax(row) for weight, row in branches))


def _stage(
    name: str,
    params: SamplingParams,
    row: np.ndarray,
    recent: Sequence[int],
    breakers: Collection[int],
) -> list[tuple[float, np.ndarray]]:
    """Apply a stage to a row: (probability, row) pairs; only XTC gives two."""
    if name == "penalties":
        return [(1.0, penalised(params, row, recent))]
    if name == "dry":
        return [(1.0, dry(params, row, recent, breakers))]
    if name == "xtc":
        p = params.xtc_probability
        return [(p, xtc(row, params.xtc_threshold)), (1 - p, row)]
    if name == "temperature":
        return [(1.0, row / params.temperature)]
    cuts = {"top_k": top_k, "typical_p": typical, "top_p": top_p, "min_p": min_p}
    return [(1.0, cuts[name](row, getattr(params, name)))]


def _kept(row: np.ndarray, tokens: Any) -> np.ndarray:
    cut = np.full_like(row, -np.inf)
    cut[tokens] = row[tokens]
    return cut


def top_k(row: np.ndarray, k: int) -> np.ndarray:
    """Keep the k greatest (Fan et al. 2018); 0: all."""
    return _kept(row, np.argsort(-row, kind="stable")[:k]) if k else row


def top_p(row: np.ndarray, p: float) -> np.ndarray:
    """Keep the smallest set of most probable tokens that sums to p (Holtzman et al. 2019)."""
    if p >= 1:
        return row
    order = np.argsort(-row, kind="stable")
    found = softmax(row)[order]
    before = np.cumsum(found) - found
    return _kept(row, order[(before < p) | (np.arange(row.size) == 0)])


def min_p(row: np.ndarray, p: float) -> np.ndarray:
    """Keep the tokens of at least p times the greatest probability (Nguyen et al. 2024)."""
    found = softmax(row)
    return _kept(row, found >= p * found.max())


def typical(row: np.ndarray, p: float) -> np.ndarray:
    """Keep the tokens whose surprise is nearest to the entropy, up to p (Meister et al. 2022)."""
    if p >= 1:
        return row
    found = softmax(row)
    possible = np.flatnonzero(found)
    surprise = -np.log(found[possible])
    entropy = (found[possible] * surprise).sum()
    order = possible[np.argsort(np.abs(surprise - entropy), kind="stable")]
    before = np.cumsum(found[order]) - found[order]
    return _kept(row, order[(before <= p) | (np.arange(order.size) == 0)])


def xtc(row: np.ndarray, threshold: float) -> np.ndarray:
    """Of the tokens that reach the threshold keep only the least probable (p-e-w, 2024)."""
    found = softmax(row)
    above = np.flatnonzero((found >= threshold) & np.isfinite(row))
    if above.size < 2:
        return row
    out = row.copy()
    out[above[above != above[found[above].argmin()]]] = -np.inf
    return out


def penalised(params: SamplingParams, row: np.ndarray, recent: Sequence[int]) -> np.ndarray:
    """Repetition penalty (Keskar et al. 2019), then OpenAI's presence and frequency penalties."""
    window = recent[-params.repeat_last_n :] if params.repeat_last_n else ()
    out = row.copy()
    for token in {token for token in window if token < row.size}:
        divided = out[token] / params.repeat_penalty
        out[token] = divided if out[token] > 0 else out[token] * params.repeat_penalty
        out[token] -= params.presence_penalty
        out[token] -= list(window).count(token) * params.frequency_penalty
    return out


def dry(
    params: SamplingParams, row: np.ndarray, recent: Sequence[int], breakers: Collection[int]
) -> np.ndarray:
    """Don't Repeat Yourself (p-e-w, 2024): penalise tokens that would prolong a repetition.

    For each earlier token, n is the length of the longest sequence right before it that also ends
    `recent`. Such a sequence does not extend across a breaker.
    """
    last_n = params.dry_penalty_last_n
    window = list(recent if last_n < 0 else recent[-last_n:] if last_n else ())
    longest: dict[int, int] = {}
    for at in range(1, len(window)):
        n = 0
        while n < at and window[at - 1 - n] == window[-1 - n] and window[-1 - n] not in breakers:
            n += 1
        longest[window[at]] = max(longest.get(window[at], 0), n)
    out = row.copy()
    for token, n in longest.items():
        exponent = n - params.dry_allowed_length
        if exponent >= 0 and token not in breakers and token < row.size:
            out[token] -= params.dry_multiplier * params.dry_base**exponent
    return out


def random_params(rng: np.random.Generator, *, greedy: bool = False) -> SamplingParams:
    """Random parameters: any stage on or off, in any order; no Mirostat."""

    def sometimes(value: Any, off: Any) -> Any:
        return value if rng.random() < 0.5 else off

    return SamplingParams(
        temperature=0 if greedy else float(rng.uniform(0.3, 2.0)),
        top_k=sometimes(int(rng.integers(1, 40)), 0),
        top_p=sometimes(float(rng.uniform(0.2, 0.99)), 1.0),
        min_p=sometimes(float(rng.uniform(0.01, 0.3)), 0.0),
        typical_p=sometimes(float(rng.uniform(0.2, 0.99)), 1.0),
        xtc_probability=sometimes(1.0, 0.0),
        xtc_threshold=float(rng.uniform(0.02, 0.3)),
        repeat_penalty=sometimes(float(rng.uniform(0.7, 1.5)), 1.0),
        presence_penalty=sometimes(float(rng.uniform(-2, 2)), 0.0),
        frequency_penalty=sometimes(float(rng.uniform(-1, 1)), 0.0),
        repeat_last_n=int(rng.integers(0, 30)),
        dry_multiplier=sometimes(float(rng.uniform(0.1, 2)), 0.0),
        dry_base=float(rng.uniform(1, 2)),
        dry_allowed_length=int(rng.integers(1, 4)),
        dry_penalty_last_n=int(rng.integers(-1, 40)),
        logit_bias=sometimes(((3, 2.5), (7, -100.0), (11, -1.0)), ()),
        samplers=tuple(rng.permutation(STAGES).tolist()[int(rng.integers(0, 3)) :]),
        seed=int(rng.integers(0, 2**32 - 1)),
    )
