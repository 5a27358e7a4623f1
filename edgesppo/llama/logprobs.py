"""The log-probabilities of one row of logits: of the chosen token and of the most probable ones.

They are the model's own: the natural logarithm of the softmax of the raw logits, before bias,
penalties, temperature and truncation. numpy is imported at the first use.
"""

from __future__ import annotations

from dataclasses import dataclass

_BLOCK = 256


@dataclass(frozen=True)
class RowLogprobs:
    """The log-probability of the chosen token, and of the most probable ones.

    `top` holds (token, log-probability) pairs, best first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def of_row(row: memoryview, token: int, n: int) -> RowLogprobs:
    """The log-probabilities of `token` and of the `n` most probable tokens.

    `row` holds the bytes of n_vocab float32 logits and is read without a copy. Of equal logits
    the lower id comes first.
    """
    import numpy as np

    logits = np.frombuffer(row, dtype=np.float32)
    best = logits.max()
    powers = np.subtract(logits, best)
    np.exp(powers, out=powers)
    log_sum = float(best) + float(np.log(powers.sum(dtype=np.float64)))
    top: list[int] = []
    if n:
        # At least n logits reach the n-th greatest of the blocks' maxima.
        maxima = np.maximum.reduceat(logits, np.arange(0, logits.size, _BLOCK))
        enough = np.partition(maxima, -n)[-n] if maxima.size >= n else logits.min()
        possible = np.flatnonzero(logits >= enough)
        order = np.lexsort((possible, -logits[possible]))[:n]
        top = possible[order].tolist()
    return RowLogprobs(
        float(logits[token]) - log_sum,
        tuple((other, float(logits[other]) - log_sum) for other in top),
    )
