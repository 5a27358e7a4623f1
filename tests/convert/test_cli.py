"""`edgesppo convert`, as called by a person and by a script."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner, Result
from gguf import GGUFReader

from edgesppo.cli import main
from edgesppo.cli.convert import KERNELS, LAYOUTS, TYPES, _summarise
from edgesppo_convert import ConvertResult
from edgesppo_convert.gemma2 import vocab
from edgesppo_convert.plan import plan, tensor_order
from edgesppo_convert.quant import kernels, recipe
from tests.conftest import DEMO
from tests.support.checkpoints import SHAPES, resized, write_checkpoint, write_hollow_checkpoint
from tests.support.command_line import started


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = resized(SHAPES["tiny"], layers=1)
    return write_checkpoint(tmp_path_factory.mktemp("source") / "model", shape)


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, words)])


def test_the_choices_are_those_of_the_converter() -> None:
    assert tuple(recipe.RECIPES) == get_args(recipe.RecipeName) == TYPES
    assert tensor_order.LAYOUTS == LAYOUTS
    assert kernels.CHOICES == KERNELS


def test_the_whole_transcript(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out.gguf")
    result = call(source, "-o", out)
    assert result.exit_code == 0
    assert result.stdout == ""
    text = re.sub(r"[0-9a-f]{64}", "HASH", result.stderr)
    text = re.sub(r"\d+\.\d s, peak memory [\d,]+ MB", "N s, peak memory N MB", text)
    assert text == (
        f"Converting {source} to q4_k_m: 0.5 MB ...\n"
        f"{out}: 0.5 MB, 5.43 bits per weight\n"
        "13 tensors: 5 F32, 3 Q6_K, 5 Q4_K\n"
        "N s, peak memory N MB\n"
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


def test_the_plan_of_the_9b_has_llama_cpps_size_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 256,000 tokens take seconds, and no part in this.
    monkeypatch.setattr(plan, "read_vocabulary", lambda *_: vocab.Vocabulary([], {}, None, {}))
    monkeypatch.setattr(plan, "check_planned", lambda *_: None)
    folder = write_hollow_checkpoint(tmp_path / "9b", SHAPES["9b"])
    result = call(folder, "--plan")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"token_embd\.weight +256000 x 3584  Q6_K +752,640,000", lines[169])
    assert lines[-1] == (
        "464 tensors (169 F32, 43 Q6_K, 252 Q4_K), 5,755,000,832 bytes of tensor data,"
        " 4.98 bits per weight"
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


def test_a_folder_as_output_is_one_error_without_a_note(source: Path, tmp_path: Path) -> None:
    result = call(source, "-o", tmp_path)
    assert "exists and is not a file; expected a file name that ends in .gguf" in result.stderr
    assert "Note:" not in result.stderr


def test_without_a_plan_an_output_is_needed(source: Path) -> None:
    result = call(source)
    assert result.exit_code == 2
    assert "Missing option '-o'" in result.stderr
    assert f"edgesppo convert {source} -o model.gguf" in result.stderr


def test_the_self_test_lets_the_file_write_ten_tokens(tmp_path: Path) -> None:
    result = call(DEMO, "-o", tmp_path / "demo.gguf", "--self-test")
    assert result.exit_code == 0
    assert re.search(r"^self-test: [1-9]0? tokens, '\w+.*'$", result.stderr, re.MULTILINE)


def test_a_self_test_that_fails_comes_after_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo.gguf"
    monkeypatch.setattr("edgesppo.llama.model.Model._find_ends", lambda model: range(model.n_vocab))
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
    assert result.stderr.startswith(
        f"edgesppo: there is no checkpoint folder {source / 'nothing'}; "
    )
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failure_with_json_is_an_object(source: Path, tmp_path: Path) -> None:
    result = call(source, "-o", tmp_path / "no" / "out.gguf", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "OutputError"
    assert "does not exist" in error["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["--type", "q3"],
        ["--threads", "0"],
        ["--layout", "best"],
        ["--imatrix", "nothing"],
        ["--tensor-type", "attn_v"],
        ["--tensor-type", "attn_v=q3"],
        ["--tensor-type", "attn_v(=q8_0"],
        ["--tensor-type", "nothing=q8_0"],
        ["--tensor-type", "attn_v=q8_0", "--type", "f16"],
        ["--tensor-type", "attn=q8_0", "--tensor-type", "attn_v=q6_k"],
    ],
)
def test_a_wrong_option_is_exit_code_2_and_a_hint(
    source: Path, tmp_path: Path, words: list[str]
) -> None:
    for way in (["-o", tmp_path / "out.gguf"], ["--plan"]):
        result = call(source, *way, *words)
        assert result.exit_code == 2
        assert result.stderr.startswith("Usage: main convert [OPTIONS] SRC\nTry ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", [True, False])
@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("some.gguf", b"GGUF", ["is a GGUF file", "checkpoint folder", "edgesppo chat {place}"]),
        ("gguf", b"GGUF", ["is a GGUF file", "checkpoint folder", "edgesppo chat {place}"]),
        (
            *("some.safetensors", b"\0"),
            ["is one file of a checkpoint", "expected its folder", "edgesppo convert {folder} -o"],
        ),
        ("some.txt", b"some", ["is a file", "checkpoint folder", "convert FOLDER -o OUT.gguf"]),
        ("nothing", None, ["no checkpoint folder", "edgesppo list", "OWNER/NAME@COMMIT"]),
    ],
)
def test_what_is_no_folder_is_told_with_what_to_type(
    tmp_path: Path, name: str, data: bytes | None, words: list[str], output: bool
) -> None:
    place = tmp_path / name
    if data is not None:
        place.write_bytes(data)
    result = call(place, *(["-o", tmp_path / "out.gguf"] if output else []))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for word in (str(place), *words):
        assert word.format(place=place, folder=tmp_path) in result.stderr


def test_the_demo_is_converted_by_its_name_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("demo")
    assert result.exit_code == 2
    assert "for example: edgesppo convert demo -o demo.gguf" in result.stderr
    assert call("demo", "-o", "demo.gguf").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["demo.gguf"]


def test_what_has_no_effect_and_an_odd_name_are_told(source: Path, tmp_path: Path) -> None:
    result = call(source, "-o", tmp_path / "out", "--keep")
    assert result.exit_code == 0
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 2
    assert f"{source} is a local folder, so nothing is downloaded" in notes[0]
    assert notes[1].endswith(f"ends in .gguf; this will be {tmp_path / 'out'}")
    assert "Note: " not in call(source, "-o", tmp_path / "OUT.GGUF").stderr


@pytest.mark.parametrize("resumed", [0, 400])
@pytest.mark.parametrize("doubt", [None, "they make other bytes than ggml of Q4_K " * 3])
def test_what_is_said_at_the_end_fits_a_usual_terminal(
    capsys: pytest.CaptureFixture[str], resumed: int, doubt: str | None
) -> None:
    result = ConvertResult(
        output=Path("Gemma-2-9B-It-SPPO-Iter3.gguf"),
        bytes=5_761_057_696,
        sha256="0" * 64,
        seconds=1234.5,
        bits_per_weight=4.98,
        tensors=464,
        types=dict.fromkeys(("F32", "Q6_K", "Q4_K", "Q5_0", "Q8_0", "IQ4_XS", "BF16"), 100),
        resumed=resumed,
        kernels="ggml" if doubt else "fast",
        doubt=doubt,
    )
    _summarise(result, 12_345_678_901)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) < 80
    assert any("400 tensors from the previous run" in line for line in lines) == bool(resumed)
    assert lines[-1] == "Next: edgesppo chat Gemma-2-9B-It-SPPO-Iter3.gguf"


def test_ctrl_c_says_how_to_go_on_and_the_next_run_does(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    out = tmp_path / "out.gguf"
    with monkeypatch.context() as patch:
        patch.setattr("edgesppo_convert.output.output.RECORD_EVERY", 1)
        patch.setattr("edgesppo.terminal.progress.Meter.update", interrupt)
        stopped = call(source, "-o", out)
    assert stopped.exit_code == 130
    part = tmp_path / ".out.gguf.edgesppo-part"
    assert re.fullmatch(
        rf"\nedgesppo: stopped; \d+ of 13 tensors are kept in {re.escape(str(part))}:"
        r" run the same command again to continue\n",
        stopped.stderr,
    )
    again = call(source, "-o", out)
    assert again.exit_code == 0
    assert re.search(r"\n\d+ tensors from the previous run were verified and reused", again.stderr)
    assert list(tmp_path.iterdir()) == [out]


# It goes on behind the first tensor when it is told to.
WAITING = """
import sys
from edgesppo.cli import main
from edgesppo.terminal.progress import Meter

def update(self, done, total):
    if done:
        print("at work", flush=True)
        sys.stdin.readline()

Meter.update = update
main(["convert", *sys.argv[1:]])
"""


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent otherwise there")
def test_ctrl_c_is_exit_code_130_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", WAITING, str(source), "-o", str(tmp_path / "model.gguf")]
    pipe = subprocess.PIPE
    with started(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as p:
        assert p.stdin is not None
        assert p.stdout is not None
        assert p.stdout.readline() == b"at work\n"
        assert [*tmp_path.iterdir()]
        p.send_signal(signal.SIGINT)
        p.stdin.close()
        assert p.wait(60) == 130
    assert [*tmp_path.iterdir()] == []
