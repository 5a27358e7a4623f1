"""`edgesppo convert`, as a person and as a script call it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from gguf import GGUFReader

from edgesppo.cli import main
from edgesppo.cli.convert import KERNELS, LAYOUTS, TYPES
from edgesppo_convert import kernels, layout, recipe
from tests.checkpoints import SHAPES, resized, write_checkpoint, write_hollow_checkpoint
from tests.conftest import DEMO

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = resized(SHAPES["tiny"], layers=1)
    return write_checkpoint(tmp_path_factory.mktemp("source") / "model", shape)


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, words)])


def test_the_choices_are_those_of_the_converter() -> None:
    assert tuple(recipe.RECIPES) == TYPES
    assert layout.LAYOUTS == LAYOUTS
    assert kernels.CHOICES == KERNELS


def test_the_whole_transcript(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = call(source, "-o", out)
    assert result.exit_code == 0
    assert result.stdout == ""
    text = re.sub(r"[0-9a-f]{64}", "HASH", result.stderr)
    text = re.sub(r"\d+\.\d s, [\d,]+ MB of", "N s, N MB of", text)
    assert text == (
        f"Converting {source} to q4_k_m: 0.5 MB ...\n"
        f"{out}: 0.5 MB, 5.43 bits a weight, 13 tensors (5 F32, 3 Q6_K, 5 Q4_K), N s,"
        " N MB of memory at most\n"
        "sha256 HASH\n"
        f"Next: edgesppo chat {out}\n"
    )


def test_json_is_one_object_on_standard_output(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = call(source, "-o", out, "--json", "--type", "Q8_0", "--layout", "standard")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == ["output", "bytes", "sha256", "seconds", "bits_per_weight", "tensors"]
    assert found["output"] == str(out)
    assert found["bytes"] == out.stat().st_size


def test_the_plan_of_the_9b_has_llama_cpps_size_and_writes_nothing(tmp_path: Path) -> None:
    folder = write_hollow_checkpoint(tmp_path / "9b", SHAPES["9b"])
    result = call(folder, "--plan")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"token_embd\.weight +256000 x 3584  Q6_K +752,640,000", lines[169])
    assert lines[-1] == (
        "464 tensors (169 F32, 43 Q6_K, 252 Q4_K), 5,755,000,832 bytes of tensor data,"
        " 4.98 bits a weight"
    )
    found = json.loads(call(folder, "--plan", "--json").stdout)
    assert found["bytes"] == sum(tensor["bytes"] for tensor in found["tensors"]) == 5_755_000_832
    assert list(tmp_path.iterdir()) == [folder]


def test_the_plan_is_what_is_made(source: Path, tmp_path: Path) -> None:
    words = ["--type", "q5_k_s", "--tensor-type", "attn_k=q8_0", "--layout", "standard"]
    planned = json.loads(call(source, "--plan", "--json", *words).stdout)
    call(source, "-o", tmp_path / "out.gguf", *words)
    made = GGUFReader(tmp_path / "out.gguf").tensors
    assert [(t["name"], t["type"], t["bytes"]) for t in planned["tensors"]] == [
        (t.name, t.tensor_type.name, t.n_bytes) for t in made
    ]


def test_without_a_plan_an_output_is_needed(source: Path) -> None:
    result = call(source)
    assert result.exit_code == 2
    assert "Missing option '-o'" in result.stderr


def test_kernels_are_chosen_by_option_or_environment(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    result = call(source, "-o", tmp_path / "one.gguf", "--kernels", "fast")
    assert " s by the fast kernels, " in result.stderr
    words = ["convert", str(source), "-o", str(tmp_path / "two.gguf")]
    result = CliRunner().invoke(main, words, env={"EDGESPPO_KERNELS": "fast"})
    assert " s by the fast kernels, " in result.stderr


def test_the_self_test_lets_the_file_write_ten_tokens(tmp_path: Path) -> None:
    result = call(DEMO, "-o", tmp_path / "demo.gguf", "--self-test")
    assert result.exit_code == 0
    assert re.search(r"^self-test: [1-9]0? tokens, '\w+.*'$", result.stderr, re.MULTILINE)


def test_a_self_test_that_fails_comes_after_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo.gguf"
    monkeypatch.setattr("edgesppo.model.Model.is_end", lambda *_: True)
    result = call(DEMO, "-o", out, "--self-test")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-2:]
    assert last[0] == f"Next: edgesppo chat {out}"
    assert last[1] == f"edgesppo: {out} failed its self-test: it ends its answer before it begins"
    assert out.exists()
    result = call(DEMO, "-o", out, "--self-test", "--force", "--json")
    assert result.exit_code == 1
    assert "failed its self-test" in json.loads(result.stdout)["error"]["message"]


def test_a_failure_is_one_line_and_exit_code_1(source: Path, tmp_path: Path) -> None:
    result = call(source / "nothing", "-o", tmp_path / "out.gguf")
    assert result.exit_code == 1
    assert result.stderr == f"edgesppo: no checkpoint folder {source / 'nothing'}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_failure_with_json_is_an_object(source: Path, tmp_path: Path) -> None:
    result = call(source, "-o", tmp_path / "no" / "out.gguf", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "OutputError"
    assert "does not exist" in error["message"]


@pytest.mark.parametrize("words", [["--type", "q3"], ["--threads", "0"], ["--layout", "best"]])
def test_a_wrong_option_is_exit_code_2(source: Path, tmp_path: Path, words: list[str]) -> None:
    assert call(source, "-o", tmp_path / "out.gguf", *words).exit_code == 2


def test_ctrl_c_says_how_to_go_on_and_the_next_run_does(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    out = tmp_path / "out.gguf"
    with monkeypatch.context() as patch:
        patch.setattr("edgesppo_convert.output.CLAIM", 1)
        patch.setattr("edgesppo.cli.progress.Meter.update", interrupt)
        stopped = call(source, "-o", out)
    assert stopped.exit_code == 130
    part = tmp_path / ".out.gguf.edgesppo-part"
    assert re.fullmatch(
        rf"\nedgesppo: stopped; \d+ of 13 tensors are kept in {re.escape(str(part))}:"
        r" the same command goes on there\n",
        stopped.stderr,
    )
    again = call(source, "-o", out)
    assert again.exit_code == 0
    assert re.search(r"\n\d+ tensors were there from the run before, and were ch", again.stderr)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent otherwise there")
def test_ctrl_c_is_exit_code_130_and_leaves_nothing(tmp_path: Path) -> None:
    shape = resized(SHAPES["tiny"], layers=8, hidden=1024, ffn=4096)
    folder = write_checkpoint(tmp_path / "source", shape)
    (tmp_path / "out").mkdir()
    words = ["convert", str(folder), "-o", str(tmp_path / "out" / "model.gguf"), "--threads", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "edgesppo", *words], stderr=subprocess.DEVNULL
    ) as p:
        deadline = time.monotonic() + 60
        while not any((tmp_path / "out").iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        p.send_signal(signal.SIGINT)
        assert p.wait(60) == 130
    assert list((tmp_path / "out").iterdir()) == []
