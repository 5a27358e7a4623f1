"""Top-p: the most probable tokens that together reach a probability.

llama.cpp's own stage computes 256,000 probabilities one after another and sorts them in thousands:
2 ms a token where the model is sure of itself, 20 ms where it is not, which is a good part of a
step. The same definition (Holtzman et al., https://arxiv.org/abs/1904.09751), computed by vectors
and sorted only as far as needed, takes a fraction of that.
"""

from __future__ import annotations

import math
from typing import Any

from edgesppo.errors import NativeError

# Tokens of at least such a share of the best one's probability are looked at first.
_SHARES = (1e-2, 1e-4, 1e-6, 0.0)
# So many sorted probabilities are summed at once: a running sum of 256,000 takes longer than to
# sort them.
_BLOCK = 512


def nucleus(logits: Any, p: float) -> Any:
    """The fewest most probable tokens whose probabilities sum to at least `p`; at least one.

    `logits` is float32 [n]; the result holds indices into it, int64 [k], ascending. Sums are
    float64. Of equally probable tokens at the limit, those with the lowest indices are kept.
    Raises NativeError for logits that are not numbers.
    """
    import numpy as np

    best = logits.max()
    if not math.isfinite(best):
        raise no_probabilities()
    weights = np.subtract(logits, best)
    np.exp(weights, out=weights)
    wanted = p * float(weights.sum(dtype=np.float64))
    for share in _SHARES:
        # Indices first: a mask as an index takes five times as long where it is as good as random.
        found = weights[np.flatnonzero(weights >= share)]
        if float(found.sum(dtype=np.float64)) >= wanted:
            break
    best_first = np.sort(found)[::-1]
    n = _n_summing_to(best_first, wanted)
    least = best_first[n - 1]
    kept = np.flatnonzero(weights >= least)
    if len(kept) > n:
        equal = np.flatnonzero(weights[kept] == least)
        kept = np.delete(kept, equal[n - len(kept) :])
    return kept


def no_probabilities() -> NativeError:
    """The error for logits that are no finite numbers, to be raised."""
    return NativeError("the model computed no probabilities: its file may be damaged; verify it")


def _n_summing_to(values: Any, wanted: float) -> int:
    """How many of the first `values` sum to at least `wanted`; all, if they do not."""
    import numpy as np

    start = 0
    if len(values) > _BLOCK:
        whole = values[: len(values) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
        sums = np.cumsum(whole.sum(axis=1, dtype=np.float64))
        block = int(np.searchsorted(sums, wanted))
        if block:
            start, wanted = block * _BLOCK, wanted - float(sums[block - 1])
        values = values[start : start + _BLOCK]
    sums = np.cumsum(values, dtype=np.float64)
    return start + min(int(np.searchsorted(sums, wanted)) + 1, len(values))
