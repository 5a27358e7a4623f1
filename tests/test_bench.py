"""`edgesppo bench`: figures of this very run, whole and sensible."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo import bench
from edgesppo.bench import Report
from edgesppo.cli import main
from edgesppo.draft import ROWS
from edgesppo.tune import Tuning

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_READ", 8 << 20)


def test_every_figure_is_there_as_json(demo_gguf: Path) -> None:
    result = CliRunner().invoke(main, ["bench", str(demo_gguf), "--json", "--threads", "1"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found["prefill"]) == ["32", "64", "128", "256"]
    assert list(found["decode"]) == list(found["prefill"])
    assert [int(n) for n in found["rows"]] == list(ROWS)
    rates = [*found["prefill"].values(), *found["decode"].values(), *found["rows"].values()]
    assert all(rate > 0 for rate in rates)
    assert found["bandwidth"] > 0
    assert found["load_s"] > 0
    assert found["bytes"] < demo_gguf.stat().st_size
    assert found["advice"]


def test_for_a_person_every_line_fits_80_columns(demo_gguf: Path) -> None:
    result = CliRunner().invoke(main, ["bench", str(demo_gguf)])
    assert result.exit_code == 0, result.stderr
    figures, _, advice = result.stdout.partition("What would make it faster\n")
    assert advice
    assert all(len(line) <= 80 for line in figures.splitlines())


def report(**changes: object) -> Report:
    found = Report("m", 10**9, "cpu", "0", Tuning(2, 2), 20e9)
    found.decode = {32: 18.0}
    found.rows = {1: 10.0, 4: 20.0}
    found.threads = {2: (1.0, 10.0)}
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def test_decode_that_reaches_the_memorys_speed_is_told_so() -> None:
    assert report().bound == pytest.approx(0.9)
    assert "only fewer bytes help" in report().advice()[0]
    assert "the processor is the limit" in report(decode={32: 5.0}).advice()[0]


def test_better_threads_are_named_only_where_they_gain() -> None:
    better = report(threads={2: (1.0, 10.0), 4: (1.0, 12.0)}).advice()
    assert any("--threads 4" in line for line in better)
    noise = report(threads={2: (1.0, 10.0), 4: (1.0, 10.2)}).advice()
    assert not any("--threads" in line for line in noise)
