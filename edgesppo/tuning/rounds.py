"""Decide between settings by rounds that were measured in turn: by medians, and beyond noise.

Other programs make single rounds slower, never faster, and a machine's clock drifts. So settings
are measured one after the other, again and again, and compared round by round: a gain counts where
its median is greater than its spread. Pure.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.planning.run_config import RunConfig


@dataclass
class Rounds:
    """Tokens per second of each round: of a prompt, and of an answer."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)

    def add(self, rates: tuple[float, float]) -> None:
        """Take in one round."""
        self.prefill.append(rates[0])
        self.decode.append(rates[1])


class Measured:
    """Settings with what was measured of them."""

    def __init__(self, tuning: RunConfig, rounds: Rounds) -> None:
        self._tuning, self.rounds = tuning, rounds

    @property
    def tuning(self) -> RunConfig:
        """The settings with the medians of the rates."""
        return replace(
            self._tuning,
            prefill_tps=statistics.median(self.rounds.prefill),
            decode_tps=statistics.median(self.rounds.decode),
        )


def seconds_each(rates: Sequence[float]) -> list[float]:
    """The time of one token in each round."""
    return [1 / rate for rate in rates]


def turn_seconds(
    prefill: Sequence[float], decode: Sequence[float], turn: tuple[int, int]
) -> list[float]:
    """The time of a turn of so many prompt and answer tokens, by each round's rates."""
    n_prompt, n_answer = turn
    return [n_prompt / p + n_answer / d for p, d in zip(prefill, decode, strict=True)]


def is_faster(times: Sequence[float], others: Sequence[float], margin: float) -> bool:
    """Whether the first takes less time than the other of the same rounds, beyond noise.

    `margin` is the least share of the other's time that must be gained.
    """
    gains = _gains(times, others)
    return statistics.median(gains) > max(margin * statistics.median(others), _spread(gains))


def is_open(times: Sequence[float], others: Sequence[float], margin: float) -> bool:
    """Whether a gain would count, if it were not for its spread."""
    gains = _gains(times, others)
    enough = statistics.median(gains) > margin * statistics.median(others)
    return enough and not is_faster(times, others, margin)


def _gains(times: Sequence[float], others: Sequence[float]) -> list[float]:
    return [other - time for time, other in zip(times, others, strict=True)]


def _spread(values: Sequence[float]) -> float:
    """Half of the range, without the least and the greatest where there are five or more."""
    ordered = sorted(values)
    if len(ordered) >= 5:
        ordered = ordered[1:-1]
    return (ordered[-1] - ordered[0]) / 2
