"""Figures of many tokens: perplexity with its error, and llama-perplexity's divergence figures.

Errors are standard errors of the mean. Percentiles interpolate between neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgesppo.evaluate.logits import TokenFigures

    Values = NDArray[np.float64]

_ENOUGH = 10  # values for an error that means something


@dataclass(frozen=True)
class PerplexityFigures:
    """The perplexity of a text: e to the mean negative log-probability of its tokens."""

    tokens: int
    perplexity: float
    perplexity_error: float


@dataclass(frozen=True)
class DivergenceFigures:
    """How a model's predictions differ from a reference's, over the same tokens.

    Attributes:
        tokens: The number of tokens that were scored.
        perplexity: The model's, and its standard error.
        reference_perplexity: The reference's, and its standard error.
        ln_ratio: The logarithm of the two perplexities' ratio, and its standard error.
        kld: The mean Kullback-Leibler divergence, in nats, its standard error, its median,
            percentiles, and maximum.
        same_top: The share of tokens where both find the same token most probable.
        rms_dp: The root mean square of the difference of the token's probabilities.
    """

    tokens: int
    perplexity: float
    perplexity_error: float
    reference_perplexity: float
    reference_perplexity_error: float
    ln_ratio: float
    ln_ratio_error: float
    kld: float
    kld_error: float
    kld_median: float
    kld_p90: float
    kld_p99: float
    kld_p999: float
    kld_max: float
    same_top: float
    same_top_error: float
    rms_dp: float
    rms_dp_error: float


def perplexity_figures(nll: Values) -> PerplexityFigures:
    """The perplexity of tokens with these negative log-probabilities."""
    mean, error = _mean_and_error(nll)
    value = _exp(mean)
    return PerplexityFigures(nll.size, value, value * error)


def divergence_figures(found: TokenFigures) -> DivergenceFigures:
    """The figures of tokens that were scored under both models."""
    own, base = perplexity_figures(found.nll), perplexity_figures(found.reference_nll)
    ratio, ratio_error = _mean_and_error(found.nll - found.reference_nll)
    kld, kld_error = _mean_and_error(found.kld)
    same = float(found.same_top.mean())
    squared, squared_error = _mean_and_error(found.p_diff**2)
    rms = math.sqrt(squared)
    median, p90, p99, p999 = np.quantile(found.kld, (0.5, 0.9, 0.99, 0.999)).tolist()
    return DivergenceFigures(
        tokens=found.kld.size,
        perplexity=own.perplexity,
        perplexity_error=own.perplexity_error,
        reference_perplexity=base.perplexity,
        reference_perplexity_error=base.perplexity_error,
        ln_ratio=ratio,
        ln_ratio_error=ratio_error,
        kld=kld,
        kld_error=kld_error,
        kld_median=median,
        kld_p90=p90,
        kld_p99=p99,
        kld_p999=p999,
        kld_max=float(found.kld.max()),
        same_top=same,
        same_top_error=math.sqrt(same * (1 - same) / max(1, found.kld.size - 1)),
        rms_dp=rms,
        rms_dp_error=0.5 / rms * squared_error if rms else 0.0,
    )


def _mean_and_error(values: Values) -> tuple[float, float]:
    mean = float(values.mean())
    if values.size <= _ENOUGH:
        return mean, 0.0
    return mean, float(values.std()) / math.sqrt(values.size - 1)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
