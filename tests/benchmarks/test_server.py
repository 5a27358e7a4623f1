"""What the benchmark of servers makes of what it measured."""

from __future__ import annotations

from argparse import Namespace

import pytest

from tests.benchmarks.record import Report
from tests.benchmarks.server import OURS, SERVER, percentile, tell


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 99, 0.0),
        ([3.0], 50, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 99, 4.0),
        ([float(n) for n in range(1, 201)], 50, 100.0),
        ([float(n) for n in range(1, 201)], 99, 198.0),
    ],
)
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(
    values: list[float], share: int, expected: float
) -> None:
    assert percentile(values, share) == expected


def test_of_a_crowd_rates_and_waits_are_told_beside_each_peers() -> None:
    waits = {
        "4 distinct first token, p50": [1.0],
        "4 distinct first token, p99": [2.0],
        "4 distinct between tokens, p50": [3.0],
        "4 distinct between tokens, p99": [4.0],
    }
    rates = {"1 shared": [9.0], "4 distinct": [8.0]}
    own = {"4 distinct own": [0.1], "4 distinct whole": [5.0]}
    report = Report(Namespace(json=None))
    tell(report, {OURS: {**own, **rates, **waits}, SERVER: {**rates, **waits}})
    told = {one.name: (one.unit, one.ours, one.peer, one.more_is_better) for one in report.records}
    crowd = "4 clients, distinct prompts"
    assert told == {
        f"{crowd}: CPU time of HTTP": ("s", 0.1, "all of it", False),
        "1 client, shared prompts": ("tokens/s", 9.0, SERVER, True),
        crowd: ("tokens/s", 8.0, SERVER, True),
        f"{crowd}: first token, p50": ("s", 1.0, SERVER, False),
        f"{crowd}: first token, p99": ("s", 2.0, SERVER, False),
        f"{crowd}: between tokens, p50": ("s", 3.0, SERVER, False),
        f"{crowd}: between tokens, p99": ("s", 4.0, SERVER, False),
    }
