"""Blocks of logits -> figures of each token: its own log-probability, and how two models differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgesppo.errors import NativeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# Bytes of logits that are worked on at a time: they and what is made of them stay in the cache.
_SLICE_BYTES = 1 << 20


@dataclass(frozen=True)
class TokenFigures:
    """Figures of consecutive tokens, one item each.

    `nll` is the negative log-probability; the others compare a model with a reference, whose own is
    `reference_nll`: the Kullback-Leibler divergence of the whole distribution, whether the most
    probable token is the same, and the difference of the token's probabilities.
    """

    nll: NDArray[np.float64]
    reference_nll: NDArray[np.float64]
    kld: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    p_diff: NDArray[np.float64]


def as_rows(block: memoryview, n_vocab: int) -> Floats:
    """A block of logits as rows, without a copy."""
    return np.frombuffer(block, np.float32).reshape(-1, n_vocab)


def nlls(rows: Floats, tokens: Sequence[int], who: str) -> NDArray[np.float64]:
    """The negative log-probabilities of tokens; `who` is the model's name, for messages."""
    shifted, weights = _buffers(rows, 2)
    found = []
    for at, n in _slices(rows):
        own = _softmax(rows[at : at + n], tokens[at : at + n], who, shifted, weights)
        found.append(own.nll)
    return np.concatenate(found)


def compare(
    reference: Floats, rows: Floats, tokens: Sequence[int], who: tuple[str, str]
) -> TokenFigures:
    """Compare a model's logits with a reference's, row by row."""
    buffers = _buffers(rows, 4)
    parts = []
    for at, n in _slices(rows):
        picked, one, other = tokens[at : at + n], reference[at : at + n], rows[at : at + n]
        base = _softmax(one, picked, who[0], *buffers[:2])
        own = _softmax(other, picked, who[1], *buffers[2:])
        difference = np.subtract(base.shifted, own.shifted, out=own.shifted)
        # The logarithms of the sums are taken out: a float32 would round what matters here.
        mean = np.einsum("ij,ij->i", base.weights, difference) / base.sums
        kld = mean + np.log(own.sums) - np.log(base.sums)
        same = one.argmax(axis=1) == other.argmax(axis=1)
        p_diff = np.exp(-own.nll) - np.exp(-base.nll)
        parts.append(TokenFigures(own.nll, base.nll, kld, same, p_diff))
    return concatenate(parts)


def concatenate(parts: Sequence[TokenFigures]) -> TokenFigures:
    """The figures of several blocks in a row."""
    names = TokenFigures.__dataclass_fields__
    return TokenFigures(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in names)
    )


def select(figures: TokenFigures, chosen: NDArray[np.bool_]) -> TokenFigures:
    """The figures of the chosen tokens."""
    return TokenFigures(
        *(getattr(figures, name)[chosen] for name in TokenFigures.__dataclass_fields__)
    )


def _slices(rows: Floats) -> list[tuple[int, int]]:
    """(first row, number of rows) of each slice."""
    step = _slice_rows(rows)
    return [(at, min(step, len(rows) - at)) for at in range(0, len(rows), step)]


def _slice_rows(rows: Floats) -> int:
    n_vocab: int = rows.shape[1]
    return max(1, _SLICE_BYTES // (4 * n_vocab))


def _buffers(rows: Floats, count: int) -> list[Floats]:
    """Memory for what is made of a slice; getting it anew for each would take longer than that."""
    shape = (min(len(rows), _slice_rows(rows)), rows.shape[1])
    return [np.empty(shape, np.float32) for _ in range(count)]


class _Softmax(NamedTuple):
    """The softmax of rows of logits, not yet divided by its sums."""

    shifted: Floats  # the logits, without the largest of their row
    weights: Floats  # their exponentials
    sums: NDArray[np.float64]  # of the weights, by row
    nll: NDArray[np.float64]  # the negative log-probability of each row's token


def _softmax(
    rows: Floats, tokens: Sequence[int], who: str, shifted: Floats, weights: Floats
) -> _Softmax:
    """The softmax of a slice, in buffers that are at least as long."""
    shifted, weights = shifted[: len(rows)], weights[: len(rows)]
    np.subtract(rows, rows.max(axis=1, keepdims=True), out=shifted)
    np.exp(shifted, out=weights)
    sums = weights.sum(axis=1).astype(np.float64)
    if not np.isfinite(sums).all():
        raise NativeError(
            f"{who} computes logits that are NaN or infinite: the file is damaged, or its weights "
            "are; convert the checkpoint again"
        )
    own = shifted[np.arange(len(rows)), np.asarray(tokens)].astype(np.float64)
    return _Softmax(shifted, weights, sums, np.log(sums) - own)
