"""Find out whether long prompts are worth a second context over plain weights, and from when on.

They are where repacked weights decode faster and plain ones prefill faster, by more than copying
the prompt's cells takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo.tuning.measure import LENGTHS, TwoContextsProbe, longest, open_probes
from edgesppo.tuning.rounds import Measured, Rounds, is_faster, turn_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.tuning.measure import Probe

# Seconds that the longest prompt may take; shorter ones than SHORTEST are not worth a context.
_LONGEST_TRY, _SHORTEST = 8.0, 64
_ROUNDS = 3
# The most steps that a search reports.
MOST_STEPS = _ROUNDS * len([n for n in LENGTHS if n >= _SHORTEST])


def with_second_context(
    path: Path,
    repacked: Measured,
    plain: Measured,
    turn: tuple[int, int],
    *,
    margin: float,
    on_step: Callable[[], None],
) -> Measured | None:
    """The settings of two contexts, if they make the turn faster than each alone; else None.

    `repacked` and `plain` were measured in the same rounds, `turn` is the number of prompt and
    answer tokens, and `margin` the share of time below which a gain is noise.
    """
    decode = repacked.rounds.decode, plain.rounds.decode
    if not is_faster(_times(decode[0]), _times(decode[1]), margin):
        return None
    one, way = repacked.tuning, replace(plain.tuning, repack=True, plain_from=_SHORTEST)
    way = replace(way, n_threads=one.n_threads)
    with open_probes(path, [one, way], turn[0]) as (single, double):
        assert isinstance(double, TwoContextsProbe)
        rate = min(single.warm_up(), double.warm_up())
        n_most = max(_SHORTEST, longest(rate, _LONGEST_TRY, turn[0]))
        singles, doubles, copies = _in_turn(single, double, n_most, on_step)
        without_copy = [time - copy for time, copy in zip(doubles, copies, strict=True)]
        turns = [
            turn_seconds([n_most / time for time in prefill], rates[-_ROUNDS:], turn)
            for prefill, rates in (
                (singles, decode[0]),
                (without_copy, decode[1]),
                (doubles, decode[0]),
            )
        ]
        if not all(is_faster(turns[2], other, margin) for other in turns[:2]):
            return None
        least = _least(single, double, n_most, margin, on_step)
    rounds = Rounds([n_most / time for time in doubles], decode[0][-_ROUNDS:])
    return Measured(replace(way, plain_from=least), rounds)


def _least(
    single: Probe | TwoContextsProbe,
    double: TwoContextsProbe,
    n_most: int,
    margin: float,
    on_step: Callable[[], None],
) -> int:
    """The shortest of LENGTHS from which on two contexts are faster; they are at `n_most`."""
    least = n_most
    for n in sorted({n for n in LENGTHS if _SHORTEST <= n < n_most}, reverse=True):
        singles, doubles, _ = _in_turn(single, double, n, on_step)
        if not is_faster(doubles, singles, margin):
            break
        least = n
    return least


def _in_turn(
    single: Probe | TwoContextsProbe,
    double: TwoContextsProbe,
    n: int,
    on_step: Callable[[], None],
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of prompts in one context and in two, and of copying, in each round."""
    singles, doubles, copies = [], [], []
    for _ in range(_ROUNDS):
        singles.append(single.prefill(n))
        doubles.append(double.prefill(n))
        copies.append(double.copy_s)
        on_step()
    return singles, doubles, copies


def _times(rates: list[float]) -> list[float]:
    return [1 / rate for rate in rates]
