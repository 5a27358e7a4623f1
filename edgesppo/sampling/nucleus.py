"""Top-p: the most probable tokens that together reach a probability.

llama.cpp's own stage computes 256,000 probabilities one after another and sorts them in thousands:
2 ms a token where the model is sure of itself, 20 ms where it is not, which is a good part of a
step. The same definition (Holtzman et al., https://arxiv.org/abs/1904.09751), computed by vectors
and sorted only as far as needed, takes a fraction of that.
"""

from __future__ import annotations

from typing import Any

from edgesppo.errors import NativeError

# Tokens of at least such a share of the best one's probability are looked at first.
_SHARES = (1e-2, 1e-4, 1e-6, 0.0)


def nucleus(logits: Any, p: float) -> Any:
    """The fewest most probable tokens whose probabilities sum to at least `p`; at least one.

    `logits` is float32 [n]; the result holds indices into it, int64 [k], ascending. Sums are
    float64. Of equally probable tokens at the limit, those with the lowest indices are kept.
    Raises NativeError for logits that are not numbers.
    """
    import numpy as np

    best = logits.max()
    if not np.isfinite(best):
        raise NativeError("the model computed no probabilities: its file may be damaged; verify it")
    weights = np.subtract(logits, best)
    np.exp(weights, out=weights)
    wanted = p * float(weights.sum(dtype=np.float64))
    for share in _SHARES:
        possible = np.flatnonzero(weights >= share)
        found = weights[possible]
        if float(found.sum(dtype=np.float64)) >= wanted:
            break
    best_first = np.sort(found)[::-1]
    n = min(int(np.searchsorted(np.cumsum(best_first, dtype=np.float64), wanted)) + 1, len(found))
    least = best_first[n - 1]
    above, equal = possible[found > least], possible[found == least]
    kept = np.concatenate([above, equal[: n - len(above)]])
    kept.sort()
    return kept
