"""What `make bench` says of figures: who is ahead, where we are behind, and the page it writes."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.record import Record, Report, compare, in_turn, read_records
from tests.benchmarks.results import LIMITS, Results
from tests.benchmarks.suite import PARTS
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.benchmarks.machine import Machine


class _Machine:
    def lines(self) -> list[tuple[str, str]]:
        return [("processor", "a processor")]


def _results(records: dict[str, list[Record]]) -> Results:
    machine: Machine = _Machine()  # type: ignore[assignment]
    return Results("make bench", machine, records=records)


@pytest.mark.parametrize(
    ("ours", "theirs", "more_is_better", "verdict"),
    [
        ([2.0, 2.2], [1.0, 1.0], True, "ahead"),
        ([2.0, 2.2], [1.0, 1.0], False, "BEHIND"),
        ([1.0, 1.0], [2.0, 2.2], True, "BEHIND"),
        ([1.0, 1.0], [2.0, 2.2], False, "ahead"),
        ([0.9, 1.1], [1.0, 1.0], False, "equal"),
    ],
)
def test_a_verdict_needs_all_rounds(
    ours: list[float], theirs: list[float], more_is_better: bool, verdict: str
) -> None:
    record = compare("x", "s", ours, "peer", theirs, more_is_better=more_is_better)
    assert record.verdict == verdict


def test_the_ratio_is_that_of_pairs_and_not_of_medians() -> None:
    record = compare("x", "s", [1.0, 10.0, 4.0], "peer", [2.0, 10.0, 1.0])
    assert (record.ratio, record.low, record.high) == (1.0, 0.5, 4.0)


def test_a_goal_is_a_least_or_a_greatest_ratio() -> None:
    more = compare("x", "t/s", [1.2], "peer", [1.0], more_is_better=True, goal=1.1)
    less = compare("x", "s", [1.2], "peer", [1.0], goal=1.1)
    assert (more.meets_goal, less.meets_goal) == (True, False)


def test_what_is_no_rival_gets_no_verdict() -> None:
    assert compare("x", "s", [5.0], "the whole", [10.0], rival=False).verdict == ""


def test_every_other_round_goes_backwards() -> None:
    order = list[str]()

    def noted(name: str) -> Callable[[], dict[str, float]]:
        return lambda: order.append(name) or {"s": float(len(order))}  # type: ignore[func-returns-value]

    found = in_turn({name: noted(name) for name in "abc"}, 2)
    assert "".join(order) == "abccba"
    assert found["a"]["s"] == [1.0, 6.0]


def test_records_survive_their_file(tmp_path: Path) -> None:
    file = tmp_path / "records.json"
    report = Report(Namespace(json=file))
    report.compare("x", "s", [1.0], "peer", [2.0], goal=0.75, note="why")
    assert read_records(file) == report.records


def test_a_program_may_write_its_rounds(tmp_path: Path) -> None:
    file = tmp_path / "rounds.json"
    file.write_text(
        '{"peer": {"turn_s": 2, "pss": 1e6}, "two contexts": {"turn_s": 1, "pss": 2e6}}\n'
        '{"peer": {"turn_s": 4, "pss": 1e6}, "two contexts": {"turn_s": 1, "pss": 2e6}}\n'
    )
    turn, memory = read_records(file)
    assert (turn.peer, turn.ratio, turn.verdict) == ("peer", 0.375, "ahead")
    assert (memory.ours, memory.unit, memory.verdict) == (2.0, "MB", "BEHIND")


def test_the_page_says_where_we_are_behind_and_what_is_missed() -> None:
    ours, theirs = [9.0, 9.0], [10.0, 10.0]
    behind = compare("decode", "tokens/s", ours, "llama-bench", theirs, more_is_better=True)
    short = compare("turn", "s", [9.0], "Llama", [10.0], goal=0.75)
    page = _results({"speed": [behind, short]}).markdown()
    told, _, missed = page.partition("## Where we are behind")[2].partition("missed:")
    assert "- decode: 0.90 of llama-bench (*" in told
    assert "- turn: 0.90 of Llama (*" in missed
    assert "; wanted: at most 0.75" in missed
    assert "**behind**" in page


def test_a_limit_is_told_as_a_share_with_the_reason() -> None:
    time = compare("load", "s", [2.0], "limit: reading", [1.0], goal=1.25, rival=False, note="why")
    page = _results({LIMITS: [time]}).markdown()
    assert "| load | 2 s | reading | 1 s | 0.50 |" in page
    assert "- load: why." in page
    assert "Nowhere" in page


def test_a_benchmark_that_failed_is_on_the_page() -> None:
    results = _results({"speed": []})
    results.failed["speed"] = "Traceback\nit broke\n"
    assert "- speed: it broke" in results.markdown()


def test_every_benchmark_of_the_suite_has_a_program() -> None:
    folder = ROOT / "tests" / "benchmarks"
    missing = {part.program for part in PARTS.values()} - {file.stem for file in folder.iterdir()}
    assert missing == set()
