"""Which of many cases a test tries: a sample by default, every one with EDGESPPO_LONG=1."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Whether the long tests run at their full length: minutes instead of seconds.
LONG = bool(os.environ.get("EDGESPPO_LONG"))
STRIDE = 13


def places(done: Sequence[str], last: int | None = None) -> list[int]:
    """The numbers, from 1, of the operations that a sweep tries; at most up to the `last` one.

    `done` has the kind of each. All of them with EDGESPPO_LONG=1; else the first and the last of
    each kind, and every thirteenth.
    """
    numbers = range(1, (last or len(done)) + 1)
    if LONG:
        return [*numbers]
    first = {done[number - 1]: number for number in reversed(numbers)}
    final = {done[number - 1]: number for number in numbers}
    return sorted({*first.values(), *final.values(), *numbers[::STRIDE]})
