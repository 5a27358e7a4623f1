"""Blocks of logits -> figures of each token: its own log-probability, and how two models differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    found = [
        _log_softmax(rows[at : at + n], tokens[at : at + n], who)[1] for at, n in _slices(rows)
    ]
    return np.concatenate(found)


def compare(
    reference: Floats, rows: Floats, tokens: Sequence[int], who: tuple[str, str]
) -> TokenFigures:
    """Compare a model's logits with a reference's, row by row."""
    parts = []
    for at, n in _slices(rows):
        picked = tokens[at : at + n]
        base, base_nll = _log_softmax(reference[at : at + n], picked, who[0])
        own, nll = _log_softmax(rows[at : at + n], picked, who[1])
        same = base.argmax(axis=1) == own.argmax(axis=1)
        kld = np.einsum("ij,ij->i", np.exp(base), base - own, dtype=np.float64)
        parts.append(TokenFigures(nll, base_nll, kld, same, np.exp(-nll) - np.exp(-base_nll)))
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
    step = max(1, _SLICE_BYTES // (4 * rows.shape[1]))
    return [(at, step) for at in range(0, len(rows), step)]


def _log_softmax(
    rows: Floats, tokens: Sequence[int], who: str
) -> tuple[Floats, NDArray[np.float64]]:
    """The logarithms of the softmax of each row, and the negative one of each row's token."""
    shifted = rows - rows.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    if not np.isfinite(log_sums).all():
        raise NativeError(
            f"{who} computes logits that are NaN or infinite: the file is damaged, or its weights "
            "are; convert the checkpoint again"
        )
    own = shifted[np.arange(len(rows)), np.asarray(tokens)].astype(np.float64)
    shifted -= log_sums[:, None].astype(np.float32)
    return shifted, log_sums - own
