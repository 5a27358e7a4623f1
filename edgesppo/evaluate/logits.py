"""Blocks of logits -> figures of each token: its own log-probability, and how two models differ."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgesppo.errors import NativeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    # As in TokenFigures, of one token.
    _RowFigures = tuple[float, float, float, bool, float]

T = TypeVar("T")
_TASK = 8  # rows that a thread takes at a time


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


def nlls(rows: Floats, tokens: Sequence[int], who: str, n_threads: int) -> NDArray[np.float64]:
    """The negative log-probabilities of tokens; `who` is the model's name, for messages."""

    def of_some(part: slice) -> list[float]:
        shifted = np.empty(rows.shape[1], np.float32)
        found = []
        for row, token in zip(rows[part], tokens[part], strict=True):
            np.subtract(row, row.max(), out=shifted)
            own = float(shifted[token])
            found.append(_log_sum(shifted, who)[1] - own)
        return found

    return np.array(_in_threads(of_some, len(rows), n_threads))


def compare(
    reference: Floats,
    rows: Floats,
    tokens: Sequence[int],
    who: tuple[str, str],
    n_threads: int,
) -> TokenFigures:
    """Compare a model's logits with a reference's, row by row."""

    def of_some(part: slice) -> list[_RowFigures]:
        buffers = np.empty((3, rows.shape[1]), np.float32)
        pairs = zip(reference[part], rows[part], tokens[part], strict=True)
        return [_compare_row(*pair, who, buffers) for pair in pairs]

    found = _in_threads(of_some, len(rows), n_threads)
    return TokenFigures(*map(np.array, zip(*found, strict=True)))


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


def _in_threads(work: Callable[[slice], list[T]], n_rows: int, n_threads: int) -> list[T]:
    """What `work` finds for all rows, some at a time; numpy lets threads compute side by side."""
    parts = [slice(at, at + _TASK) for at in range(0, n_rows, _TASK)]
    with ThreadPoolExecutor(n_threads) as pool:
        return [one for found in pool.map(work, parts) for one in found]


def _compare_row(
    base: Floats, own: Floats, token: int, who: tuple[str, str], buffers: Floats
) -> _RowFigures:
    """The figures of one token. No row is normalised: it is passed over as few times as will do."""
    base_shifted, own_shifted, difference = buffers
    base_top, own_top = base.argmax(), own.argmax()
    np.subtract(base, base[base_top], out=base_shifted)
    np.subtract(own, own[own_top], out=own_shifted)
    np.subtract(base_shifted, own_shifted, out=difference)
    base_logit, own_logit = float(base_shifted[token]), float(own_shifted[token])
    base_sum, base_log_sum = _log_sum(base_shifted, who[0])
    _, own_log_sum = _log_sum(own_shifted, who[1])
    base_nll, own_nll = base_log_sum - base_logit, own_log_sum - own_logit
    # The logarithms of the sums are taken out: a float32 would round what matters here.
    mean = float(np.einsum("i,i->", base_shifted, difference)) / base_sum
    kld = mean + own_log_sum - base_log_sum
    p_diff = math.exp(-own_nll) - math.exp(-base_nll)
    return own_nll, base_nll, kld, bool(base_top == own_top), p_diff


def _log_sum(shifted: Floats, who: str) -> tuple[float, float]:
    """The sum of the exponentials of a row, and its logarithm; the exponentials replace the row."""
    np.exp(shifted, out=shifted)
    total = float(shifted.sum())
    if not math.isfinite(total):
        raise NativeError(
            f"{who} computes logits that are NaN or infinite: the file is damaged, or its weights "
            "are; convert the checkpoint again"
        )
    return total, math.log(total)
