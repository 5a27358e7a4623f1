"""Find out whether long prompts are worth a second context over plain weights, and from when on.

They are where repacked weights decode faster and plain ones prefill faster, by more than copying
the prompt's cells takes.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from edgesppo.tuning.measure import LENGTHS, TwoContextsProbe, longest, open_probes
from edgesppo.tuning.rounds import (
    Measured,
    Rounds,
    is_faster,
    is_open,
    seconds_each,
    turn_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.tuning.measure import Probe

# Seconds that the longest prompt may take; shorter ones than SHORTEST are not worth a context.
_LONGEST_TRY, _SHORTEST = 8.0, 64
_ROUNDS = 3
# The most steps that a search reports.
MOST_STEPS = _ROUNDS * len([n for n in LENGTHS if n >= _SHORTEST])


class _Round(NamedTuple):
    """Seconds of a prompt in one context, in two, and what copying took of the latter."""

    single: float
    double: float
    copy: float


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
    if not is_faster(seconds_each(decode[0]), seconds_each(decode[1]), margin):
        return None
    rates = statistics.median(decode[0]), statistics.median(decode[1])
    one, way = repacked.tuning, replace(plain.tuning, repack=True, plain_from=_SHORTEST)
    way = replace(way, n_threads=one.n_threads)
    with open_probes(path, [one, way], turn[0]) as (single, double):
        assert isinstance(double, TwoContextsProbe)
        rate = min(single.warm_up(), double.warm_up())
        n_most = max(_SHORTEST, longest(rate, _LONGEST_TRY, turn[0]))
        found = _in_turn(single, double, n_most, on_step)
        two, *others = _turns(found, n_most, rates, turn)
        if any(is_open(two, other, margin) for other in others):
            found = [*found, *_in_turn(single, double, n_most, lambda: None)]
            two, *others = _turns(found, n_most, rates, turn)
        if not all(is_faster(two, other, margin) for other in others):
            return None
        least = _least(single, double, n_most, margin, on_step)
    rounds = Rounds([n_most / one.double for one in found], decode[0])
    return Measured(replace(way, plain_from=least), rounds)


def _turns(
    found: list[_Round], n: int, rates: tuple[float, float], turn: tuple[int, int]
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of a turn in each round: in two contexts, over repacked weights, over plain ones.

    Prompts of `n` tokens were timed; `rates` are those of answers over repacked and plain weights.
    That the former are higher is known, so that their spread must not hide what prompts gain.
    """
    prompts = (
        ([one.double for one in found], rates[0]),
        ([one.single for one in found], rates[0]),
        ([one.double - one.copy for one in found], rates[1]),
    )
    two, repacked, plain = (
        turn_seconds([n / time for time in times], [rate] * len(times), turn)
        for times, rate in prompts
    )
    return two, repacked, plain


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
        found = _in_turn(single, double, n, on_step)
        if not is_faster([one.double for one in found], [one.single for one in found], margin):
            break
        least = n
    return least


def _in_turn(
    single: Probe | TwoContextsProbe,
    double: TwoContextsProbe,
    n: int,
    on_step: Callable[[], None],
) -> list[_Round]:
    """Time prompts of `n` tokens in one context and in two, in turn."""
    found = []
    for _ in range(_ROUNDS):
        found.append(_Round(single.prefill(n), double.prefill(n), double.copy_s))
        on_step()
    return found
