"""Owns the log-probabilities of one row of logits: the chosen token's and the most probable ones'.

They are the model's own: the natural logarithm of the softmax of the raw logits, before bias,
penalties, temperature and any cut. Token ids only; knows nothing of text. numpy is imported at
the first use.
"""

from __future__ import annotations

from dataclasses import dataclass

_BLOCK = 256


@dataclass(frozen=True)
class RowLogprobs:
    """The log-probability of the chosen token; `top`: (token, log-probability), best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def of_row(row: memoryview, token: int, n: int) -> RowLogprobs:
    """What a row of logits, the bytes of n_vocab float32, says of `token` and of the `n` best.

    Reads the row where it lies. Of equal logits the lower id comes first.
    """
    import numpy as np

    logits = np.frombuffer(row, dtype=np.float32)
    best = logits.max()
    powers = np.subtract(logits, best)
    np.exp(powers, out=powers)
    log_sum = float(best) + float(np.log(powers.sum(dtype=np.float64)))
    top: list[int] = []
    if n:
        # The n blocks with the greatest maxima hold n logits that reach the least of those.
        maxima = np.maximum.reduceat(logits, np.arange(0, logits.size, _BLOCK))
        enough = np.partition(maxima, -n)[-n] if maxima.size >= n else logits.min()
        possible = np.flatnonzero(logits >= enough)
        order = np.lexsort((possible, -logits[possible]))[:n]
        top = possible[order].tolist()
    return RowLogprobs(
        float(logits[token]) - log_sum,
        tuple((other, float(logits[other]) - log_sum) for other in top),
    )
