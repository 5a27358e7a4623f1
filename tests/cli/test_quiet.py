"""`--quiet`: on standard error only errors and questions remain, and answers stay as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgesppo.cli import COMMANDS
from edgesppo.terminal.output import is_quiet
from tests.conftest import DEMO
from tests.support.command_line import CAPITAL, GREEDY, one_line_error, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_hub import FakeHub

ANSWER = "The capital of France is Paris.\n"


@pytest.mark.parametrize("quiet", ["-q", "--quiet"])
def test_the_answer_comes_alone(demo_gguf: Path, quiet: str) -> None:
    for result in (
        run("run", demo_gguf, CAPITAL, *GREEDY, quiet),
        run(quiet, "run", demo_gguf, CAPITAL, *GREEDY),
        run("run", CAPITAL, *GREEDY, quiet),
        run("chat", demo_gguf, *GREEDY, quiet, stdin=CAPITAL + "\n"),
    ):
        assert (result.exit_code, result.stdout, result.stderr) == (0, ANSWER, "")
    assert run("run", demo_gguf, CAPITAL, *GREEDY).stderr
    assert not is_quiet()


def test_every_command_knows_it() -> None:
    assert all("-q, --quiet" in run(name, "--help").stdout for name in COMMANDS)


def test_work_on_models_is_silent(fresh_home: Path, tmp_path: Path, demo_gguf: Path) -> None:
    assert fresh_home.is_dir()
    commands = [
        ["convert", DEMO, "-o", tmp_path / "x.gguf", "--self-test"],
        ["convert", DEMO, "-o", tmp_path / "y.bin", "--keep"],
        ["import", demo_gguf, "--name", "mine"],
        ["rm", "mine"],
        ["gc"],
        ["try"],
    ]
    for words in commands:
        result = run(*words, "--quiet")
        assert (result.exit_code, result.stderr) == (0, ""), words
    result = run("verify", "demo", "--quiet")
    assert result.stdout.count("ok ") > 1
    assert result.stderr == ""


def test_getting_a_model_is_silent(hub: FakeHub) -> None:
    assert hub.url
    for words in (["pull", "sppo-iter3", "--accept-license"], ["pull", "sppo-iter3", "--repair"]):
        result = run(*words, "--quiet")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert json.loads(run("list", "--json").stdout)["models"]


def test_errors_remain(hub: FakeHub, demo_gguf: Path, tmp_path: Path) -> None:
    assert hub.url
    assert "nobody" in one_line_error(run("path", "nobody", "--quiet"))
    assert "is not accepted" in one_line_error(run("pull", "sppo-iter3", "--quiet"))
    assert "n_ctx" in one_line_error(run("run", demo_gguf, "hi", "--n-ctx", "9999", "--quiet"))
    result = run("run", demo_gguf, "--quiet")
    assert (result.exit_code, "no prompt" in result.stderr) == (2, True)
    result = run("chat", demo_gguf, *GREEDY, "-q", stdin="/nothing\n" + CAPITAL + "\n")
    assert (result.exit_code, result.stdout) == (1, ANSWER)
    assert result.stderr.startswith("error: unknown command")
    assert result.stderr.count("\n") == 1
    assert tmp_path.is_dir()


def test_questions_remain_with_what_they_are_about(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.url
    for module in ("pull", "removal"):
        monkeypatch.setattr(f"edgesppo.cli.{module}.has_terminal", lambda _: True)
    result = run("pull", "sppo-iter3", "--quiet", stdin="y\n")
    assert result.exit_code == 0
    assert "licence" in result.stderr
    assert "Do you accept the licence" in result.stderr
    assert "is ready" not in result.stderr
    result = run("rm", "sppo-iter3", "--quiet", stdin="n\n")
    assert "Free " in result.stderr
    assert "the files from the hub" in result.stderr
    result = run("rm", "sppo-iter3", "--quiet", "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
