"""`edgesppo bench`: the figures are complete, measured in this run, and give the right advice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.planning.run_config import ROWS, RunConfig
from edgesppo.system import load
from edgesppo.tuning import bench
from edgesppo.tuning.bench import Report
from tests.support.tuning import measure_little

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "READ", 8 << 20)
    measure_little(monkeypatch)


def test_every_figure_is_there_as_json(demo_gguf: Path) -> None:
    result = CliRunner().invoke(main, ["bench", str(demo_gguf), "--json", "--threads", "3"])
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
    assert found["small"]
    assert "3" in found["threads"], "those that are used are among those that are tried"
    assert "say nothing about larger models" in found["advice"][0]


def test_for_a_person_every_line_fits_80_columns(demo_gguf: Path) -> None:
    result = CliRunner().invoke(main, ["bench", str(demo_gguf)])
    assert result.exit_code == 0, result.stderr
    figures, _, advice = result.stdout.partition("What would make it faster\n")
    assert advice
    assert all(len(line) <= 80 for line in figures.splitlines())


def report(**changes: object) -> Report:
    found = Report("m", 10**9, "cpu", "0", RunConfig(2, 2), 20e9)
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


def test_of_a_model_of_a_few_megabytes_nothing_is_concluded() -> None:
    found = report(small=True, threads={2: (10.0, 10.0), 4: (20.0, 20.0)})
    advice, threads = found.advice()
    assert "say nothing about larger models" in advice
    assert "runs on one thread" in threads
    assert "--threads" not in advice + threads


@pytest.mark.parametrize(("before", "during"), [(0.4, 0.0), (None, 0.4)])
def test_figures_taken_beside_busy_programs_are_not_the_machines(
    before: float | None, during: float
) -> None:
    for small in (False, True):
        first, *others = report(others_before=before, others_during=during, small=small).advice()
        assert first.startswith("other programs used 40% of the processors, so these figures are")
        assert others == report(small=small, others_before=0.1).advice()
        assert others == report(small=small).advice()


def test_what_other_programs_use_is_told(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "others", lambda: 0.02)
    monkeypatch.setattr(load.LoadMeter, "others", lambda _: 0.31)
    text = CliRunner().invoke(main, ["bench", str(demo_gguf), "--threads", "1"]).stdout
    line = "  others      other programs used 2% of the processors before, 31% during it\n"
    assert line in text
    assert "used 31% of the processors, so these figures are not" in " ".join(text.split())
    monkeypatch.setattr(load, "others", lambda: None)
    monkeypatch.setattr(load.LoadMeter, "others", lambda _: None)
    result = CliRunner().invoke(main, ["bench", str(demo_gguf), "--threads", "1"])
    assert "other programs" not in result.stdout.partition("What would")[0]


@pytest.mark.parametrize(
    ("four", "advice"),
    [
        ((20.0, 12.0), "prompts and answers are faster with 4 threads: --threads 4"),
        ((20.0, 10.2), "prompts are faster with 4 threads, answers are not: --threads 4"),
        ((9.0, 12.0), "answers are faster with 4 threads, prompts are not: --threads 4"),
        ((10.2, 10.2), None),
    ],
)
def test_better_threads_are_named_only_where_they_gain(
    four: tuple[float, float], advice: str | None
) -> None:
    found = report(threads={2: (10.0, 10.0), 4: four}).advice()
    named = [line for line in found if "--threads" in line]
    assert [line[: len(advice or "")] for line in named] == ([advice] if advice else [])


def test_the_threads_of_prompts_and_of_answers_are_held_against_their_own() -> None:
    apart = report(tuning=RunConfig(2, 4), threads={2: (10.0, 12.0), 4: (20.0, 10.0)})
    assert not any("--threads" in line for line in apart.advice())
