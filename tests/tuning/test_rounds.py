"""Settings are compared round by round, and a gain counts only beyond noise."""

from __future__ import annotations

import random

import pytest

from edgesppo.tuning.rounds import Rounds, is_faster, is_open, turn_seconds


def test_a_turn_takes_its_prompt_and_its_answer() -> None:
    rounds = Rounds()
    rounds.add((100.0, 10.0))
    rounds.add((50.0, 20.0))
    assert turn_seconds(rounds.prefill, rounds.decode, (500, 100)) == [15.0, 15.0]


@pytest.mark.parametrize(
    ("times", "others", "faster"),
    [
        ([9.0, 9.0, 9.0], [10.0, 10.0, 10.0], True),
        ([9.9, 9.9, 9.9], [10.0, 10.0, 10.0], False),  # less than the margin
        ([9.0, 12.0, 18.0], [10.0, 13.0, 19.0], True),  # all rounds alike got slower
        ([9.0, 9.0, 12.0], [10.0, 10.0, 10.0], False),  # one round says the contrary
        ([9.0, 9.0, 20.0, 9.0, 9.0], [10.0] * 5, True),  # of five, one may be spoiled
        ([10.0, 10.0, 10.0], [9.0, 9.0, 9.0], False),
    ],
)
def test_a_gain_must_exceed_the_margin_and_the_spread(
    times: list[float], others: list[float], faster: bool
) -> None:
    assert is_faster(times, others, 0.02) == faster


def test_what_one_spoiled_round_leaves_open_is_measured_on() -> None:
    assert is_open([9.0, 9.0, 12.0], [10.0] * 3, 0.02)
    assert not is_open([9.0, 9.0, 9.0], [10.0] * 3, 0.02)
    assert not is_open([10.1, 10.0, 10.0], [10.0] * 3, 0.02)


def test_noise_alone_hardly_ever_wins() -> None:
    chance = random.Random(1)
    wins = sum(
        is_faster(*([chance.gauss(10, 1) for _ in range(5)] for _ in range(2)), 0.02)
        for _ in range(2000)
    )
    assert wins < 2000 * 0.2
