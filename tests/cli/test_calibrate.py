"""`edgesppo calibrate` and `convert --calibrate`: what they print and refuse."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from edgesppo.evaluate import candidate
from edgesppo.evaluate.collector import Collector
from edgesppo.gguf import gemma2
from edgesppo.gguf.metadata import text as text_of
from edgesppo.store import converted, locate
from edgesppo.store.converted import TemporaryCopy, copies_of
from edgesppo.system.conversion_progress import Progress
from edgesppo.system.in_use import InUse
from tests.conftest import DEMO
from tests.support.command_line import one_line_error, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "chats.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    path.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    return path


def test_a_matrix_is_made_and_shown(demo_gguf: Path, dialogues: Path, tmp_path: Path) -> None:
    path = tmp_path / "matrix.gguf"
    made = run("calibrate", demo_gguf, "-o", path, "--dialogues", dialogues)
    assert made.exit_code == 0, made.output
    assert made.stdout == ""
    assert "28 weights, 15 tokens" in made.stderr
    assert "few tokens reached 28 of the weights" in made.stderr
    shown = run("calibrate", "--show", path)
    assert "28 weights, 15 tokens of chats.jsonl" in shown.stdout
    assert "blk.0.ffn_down.weight" in shown.stdout.splitlines()[2]
    found = json.loads(run("calibrate", path, "--show", "--json").stdout)
    assert found["weights"][0]["weight"] == "blk.0.ffn_down.weight"


def test_convert_says_when_few_tokens_reached_a_matrix(
    demo_gguf: Path, dialogues: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "matrix.gguf", tmp_path / "out.gguf"
    assert run("calibrate", demo_gguf, "-o", path, "--dialogues", dialogues).exit_code == 0
    result = run("convert", DEMO, "-o", out, "--type", "q8_0", "--imatrix", path)
    assert result.exit_code == 0, result.output
    assert "few tokens reached 28 of the weights, blk.0.attn_k.weight only 15" in result.stderr


def test_convert_calibrates_and_uses_its_matrix_again(dialogues: Path, tmp_path: Path) -> None:
    output = tmp_path / "demo.gguf"
    words = ("convert", DEMO, "-o", output, "--calibrate", "--dialogues", dialogues)
    words = (*words, "--type", "q8_0")  # the quickest to make
    first = run(*words)
    assert first.exit_code == 0, first.output
    assert not [copy for copy in copies_of(DEMO) if "-bf16-" in copy.name]  # it was as large
    keys = gemma2.load_summary(output).keys
    assert text_of(keys, "quantize.imatrix.file") == "demo.imatrix.gguf"
    before = (tmp_path / "demo.imatrix.gguf").stat().st_mtime_ns
    written = output.read_bytes()
    output.unlink()
    left = tmp_path / ".demo.gguf.edgesppo-dialogues"  # of a run that was killed later
    left.touch()
    assert run(*words).exit_code == 0
    assert not left.exists()
    assert (tmp_path / "demo.imatrix.gguf").stat().st_mtime_ns == before
    assert output.read_bytes() == written


def test_the_copy_of_an_interrupted_run_is_used_and_then_removed(
    dialogues: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(DEMO, mine)
    words: list[str | Path] = ["convert", mine, "-o", tmp_path / "x.gguf", "--type", "q8_0"]
    words += ["--calibrate", "--dialogues", dialogues]
    with monkeypatch.context() as patch:
        patch.setattr(Collector, "collect", interrupted)
        assert run(*words).exit_code == 130
    (copy,) = copies_of(mine)
    assert "-bf16-" in copy.name
    monkeypatch.setattr(candidate, "available_memory", lambda: 1)  # which asks for Q8_0
    assert run(*words).exit_code == 0
    assert not copies_of(mine)
    assert not list(tmp_path.glob(".*"))
    own = converted.prepare(locate.find(mine), type="bf16")[0].path
    assert run(*words, "--force").exit_code == 0
    assert list(copies_of(mine)) == [own], "it was there before"


def test_a_copy_that_another_process_uses_is_removed_by_that_one(tmp_path: Path) -> None:
    copy = converted.copy_of(locate.demo(), "bf16").with_name("x-bf16-1-2.gguf")
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.touch()
    first, last = (TemporaryCopy(tmp_path / name, copy) for name in ("A.gguf", "B.gguf"))
    first.recording(lambda _: None)(Progress("", 0, 0))
    used = InUse(copy)
    first.remove()
    assert copy.exists()
    used.release()
    last.remove()
    assert not list(copy.parent.glob("*x-bf16-1-2*"))
    assert not list(tmp_path.iterdir())


def interrupted(_: Collector) -> None:
    raise KeyboardInterrupt


def test_what_does_not_go_together_is_a_usage_error(
    demo_gguf: Path, dialogues: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    assert run("calibrate", demo_gguf).exit_code == 2
    assert run("calibrate", demo_gguf, "--show").exit_code == 2
    assert run("convert", DEMO, "-o", out, "--dialogues", dialogues).exit_code == 2
    for more in (("--imatrix", demo_gguf), ("--type", "f16"), ("--adapter", tmp_path)):
        assert run("convert", DEMO, "-o", out, "--calibrate", *more).exit_code == 2
    (tmp_path / "one").mkdir()
    shutil.copy(demo_gguf, tmp_path / "one")
    refused = run("convert", tmp_path / "one", "-o", out, "--calibrate")
    assert "already converted: edgesppo chat" in one_line_error(refused)
    assert not out.exists()


def test_what_is_wrong_is_said_before_a_copy_of_the_checkpoint_is_made(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Hello")
    (tmp_path / "taken.imatrix.gguf").write_text("mine")
    before = copies_of(DEMO)
    for name, more, said in (
        ("a.gguf", ("--text", tmp_path / "short.txt"), "at most 6 tokens"),
        ("a.gguf", ("--tensor-type", "nosuch=q8_0"), "nosuch"),
        ("taken.gguf", (), "taken.imatrix.gguf exists already"),
    ):
        refused = run("convert", DEMO, "-o", tmp_path / name, "--calibrate", *more)
        assert refused.exit_code != 0
        assert said in refused.stderr
    assert copies_of(DEMO) == before
    assert (tmp_path / "taken.imatrix.gguf").read_text() == "mine"


def test_errors_are_one_line(demo_gguf: Path, dialogues: Path, tmp_path: Path) -> None:
    words = ("calibrate", demo_gguf, "--dialogues", dialogues)
    line = one_line_error(run(*words, "-o", tmp_path / "none" / "matrix.gguf"))
    assert "does not exist" in line
    line = one_line_error(run("calibrate", "-o", tmp_path / "x.gguf"))
    assert "give a model to calibrate" in line
