"""An exact knapsack: one choice for each item, with the least loss in all within a size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

# Steps of size at most; sizes that would need more are rounded up to whole steps.
_MOST_STEPS = 4_000_000


@dataclass(frozen=True)
class Choice:
    """One way to store an item: its size in bytes, and what it loses."""

    size: int
    loss: float


def choose(items: Sequence[Sequence[Choice]], budget: int) -> list[int] | None:
    """The number of the choice for each item, so that their sizes are at most `budget` together.

    Exact: no other choices lose less, up to the rounding of sizes where their greatest common
    divisor would make more than _MOST_STEPS steps. None if even the smallest do not fit.
    """
    smallest = [min(choice.size for choice in item) for item in items]
    room = budget - sum(smallest)
    if room < 0:
        return None
    # Only what a choice takes above the smallest matters.
    extra = [
        [choice.size - least for choice in item]
        for item, least in zip(items, smallest, strict=True)
    ]
    most = sum(max(sizes) for sizes in extra)
    room = min(room, most)
    step = max(1, math.gcd(*(size for sizes in extra for size in sizes)), -(-room // _MOST_STEPS))
    n_steps = room // step
    best = np.zeros(n_steps + 1)
    chosen = np.zeros((len(items), n_steps + 1), np.uint8)
    for n, (item, sizes) in enumerate(zip(items, extra, strict=True)):
        improved = np.full(n_steps + 1, np.inf)
        for number, (choice, size) in enumerate(zip(item, sizes, strict=True)):
            steps = -(-size // step)
            if steps > n_steps:
                continue
            total = best[: n_steps + 1 - steps] + choice.loss
            better = total < improved[steps:]
            improved[steps:][better] = total[better]
            chosen[n, steps:][better] = number
        best = improved
    return _trace(chosen, extra, step, n_steps)


def _trace(
    chosen: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
    extra: Sequence[Sequence[int]],
    step: int,
    room: int,
) -> list[int]:
    """Follow the choices back from the last item."""
    found: list[int] = []
    for n in reversed(range(len(extra))):
        number = int(chosen[n, room])
        found.append(number)
        room -= -(-extra[n][number] // step)
    return found[::-1]
