"""The command line: whole transcripts, exit codes, JSON."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from edgesppo.cli import COMMANDS
from edgesppo.llama.library import can_offload
from edgesppo.sampling.params import SamplingParams
from tests.conftest import DEMO
from tests.support.command_line import CAPITAL, GREEDY, one_line_error, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {command}")


def test_run_prints_the_answer_alone_and_the_figures_beside_it(demo_gguf: Path) -> None:
    result = run("run", demo_gguf, CAPITAL, *GREEDY)
    assert result.exit_code == 0
    assert "Paris" in result.stdout
    assert "t/s" not in result.stdout
    assert "decode" in result.stderr
    assert "t/s" in result.stderr


def test_run_json_is_one_object_of_the_documented_shape(demo_gguf: Path) -> None:
    result = run("run", demo_gguf, CAPITAL, "--json", *GREEDY)
    found = json.loads(result.stdout)
    assert list(found) == ["text", "finish_reason", "usage", "timings", "model"]
    assert "Paris" in found["text"]
    assert found["finish_reason"] == "stop"
    assert list(found["usage"]) == ["prompt_tokens", "cached_tokens", "completion_tokens"]
    assert list(found["timings"]) == ["load_s", "ttft_s", "prefill_tps", "decode_tps"]
    assert found["model"] == {"name": demo_gguf.stem, "path": str(demo_gguf)}


def test_run_without_a_model_uses_the_demo_and_says_so() -> None:
    result = run("run", CAPITAL, *GREEDY)
    assert "Paris" in result.stdout
    assert "demo model" in result.stderr
    assert "edgesppo pull sppo-iter3 --convert" in result.stderr


@pytest.mark.parametrize(
    ("word", "meant"), [("sppo-iter4", "sppo-iter3"), ("dmo", "demo"), ("Demo", "demo")]
)
def test_a_word_that_is_almost_a_models_name_is_a_mistake(word: str, meant: str) -> None:
    result = run("run", word, stdin=CAPITAL)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{word} is not the name of a model; did you mean {meant}?" in result.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("run --url http://x", "'--url'; it is an option of chat\n"),
        ("run --no-such-thing", "No such option"),
        ("eval perplexity demo text.txt", "(text.txt); a text is given with --text FILE"),
        ("calibrate demo text.txt -o m.gguf", "(text.txt); a text is given with --text FILE"),
        ("list x", "Got unexpected extra argument (x)\n"),
    ],
)
def test_what_was_typed_in_the_wrong_place_is_answered_with_the_right_one(
    words: str, hint: str
) -> None:
    result = run(*words.split())
    assert result.exit_code == 2
    assert hint in result.stderr


def test_a_schema_in_the_place_of_its_file_is_recognised(demo_gguf: Path) -> None:
    schema = '{"type": "boolean"}'
    result = run("run", demo_gguf, "hi", "--schema", schema)
    assert "--schema takes the name of a file, not the schema itself" in result.stderr


def test_a_command_that_is_almost_one_is_named() -> None:
    result = run("lst")
    assert result.exit_code == 2
    assert "no such command: 'lst'; did you mean list?" in result.stderr
    assert "did you mean" not in run("xyzzy").stderr


@pytest.mark.parametrize("command", ["run", "chat"])
def test_help_has_every_option_once_under_its_heading(command: str) -> None:
    headings = re.compile(r"^(Options|Loading the model|Sampling):$", re.MULTILINE)
    option = re.compile(r"^  (?:-\w, )?--(\S+)", re.MULTILINE)
    _, *parts = headings.split(run(command, "--help").output)
    assert parts[::2] == ["Options", "Loading the model", "Sampling"]
    own, loading, sampling = (option.findall(part) for part in parts[1::2])
    assert sampling == [field.name.replace("_", "-") for field in fields(SamplingParams)]
    assert {"n-ctx", "threads", "draft"} < {*loading}
    assert own[-4:] == ["lock", "offline", "quiet", "help"]
    assert len({*own, *loading, *sampling}) == len([*own, *loading, *sampling])


@pytest.mark.parametrize("command", ["run", "chat", "bench"])
def test_which_model_is_taken_without_one_is_said_alike(command: str) -> None:
    said = (
        "The default is the model used last, else sppo-iter3 if it is on this machine, else the"
        " demo."
    )
    assert said in " ".join(run(command, "--help").output.split())


@pytest.mark.skipif(can_offload(), reason="needs a build without a GPU")
def test_layers_that_no_gpu_takes_are_said_to_stay(demo_gguf: Path) -> None:
    result = run("tokenize", demo_gguf, "x", "--json")
    assert "GPU" not in result.stderr
    result = run("run", demo_gguf, "hi", "--gpu", "5", *GREEDY)
    assert result.exit_code == 0
    assert "--gpu 5: this build finds no GPU that it can use; using the CPU" in result.stderr
    assert "finds no GPU" not in run("run", demo_gguf, "hi", "--gpu", "0", *GREEDY).stderr


@pytest.mark.parametrize("word", ["typo.gguf", "./model", "a/b/c"])
def test_what_is_written_like_a_path_is_never_taken_for_a_prompt(word: str) -> None:
    assert "is not a file, a folder" in one_line_error(run("run", word, stdin=CAPITAL))


def test_a_file_that_happens_to_lie_around_is_never_taken_for_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Hello").write_text("a note")
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "Using the tiny demo" in run("run", "Hello", *GREEDY).stderr
    assert run("try").exit_code == 0


def test_run_with_a_model_alone_needs_a_prompt(demo_gguf: Path) -> None:
    result = run("run", demo_gguf)
    assert result.exit_code == 2
    assert "no prompt" in result.stderr


@pytest.mark.parametrize("model", ["x" * 300, "a" * 5000 + ".gguf", "nul\0.gguf", "~nobody/x.gguf"])
def test_a_name_that_no_file_can_have_is_one_line(model: str) -> None:
    line = one_line_error(run("tokenize", model, "x"))
    assert "is not a file" in line
    assert len(line) < 400


SENSELESS = """--n-ctx 0 / --n-ctx 99999999999 / --threads 0 / --cache-type f8 / --tune fast
/ --gpu x / --gpu -1 / --gpu 10001 / --gpu 99999999999999999999"""


@pytest.mark.parametrize("option", [option.split() for option in SENSELESS.split("/")])
def test_a_senseless_setting_is_a_usage_error(demo_gguf: Path, option: list[str]) -> None:
    assert run("run", demo_gguf, "x", *option).exit_code == 2


def test_run_without_a_prompt_is_a_usage_error(demo_gguf: Path) -> None:
    result = run("run", demo_gguf, "")
    assert result.exit_code == 2
    assert "no prompt" in result.stderr


def test_tokenize_gives_ids_and_pieces(demo_gguf: Path) -> None:
    found = json.loads(run("tokenize", demo_gguf, "Hi <eos>", "--json").stdout)
    assert list(found) == ["ids", "pieces"]
    assert "".join(found["pieces"]) == "Hi <eos>"
    assert 1 not in found["ids"]


def test_tokenize_chat_gives_a_whole_turn(demo_gguf: Path) -> None:
    found = json.loads(run("tokenize", demo_gguf, "Hi", "--chat", "--json").stdout)
    text = "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    assert "".join(found["pieces"]) == text


def test_tokenize_takes_a_checkpoint_folder() -> None:
    result = run("tokenize", DEMO, "Hi")
    assert result.exit_code == 0
    assert "'Hi'" in result.stdout


def test_try_asks_one_question_away_from_a_terminal() -> None:
    result = run("try")
    assert result.exit_code == 0
    assert "edgesppo" in result.stdout
    assert "> Who are you?" in result.stderr


def test_chat_takes_a_message_a_line_away_from_a_terminal(demo_gguf: Path) -> None:
    lines = "My name is Ada.\nWhat is my name?\n/exit\nnot read\n"
    result = run("chat", demo_gguf, *GREEDY, stdin=lines)
    assert result.exit_code == 0
    assert "Ada" in result.stdout.splitlines()[1]
    assert len(result.stdout.splitlines()) == 2


def test_chat_goes_on_after_an_error_in_a_turn(demo_gguf: Path) -> None:
    lines = "word " * 3000 + f"\n/nonsense\n/undo\n{CAPITAL}\n"
    result = run("chat", demo_gguf, *GREEDY, stdin=lines)
    assert result.exit_code == 1, "a turn failed"
    assert "Paris" in result.stdout
    for complaint in ("shorten it by", "unknown command '/nonsense'", "no turn to take back"):
        assert complaint in result.stderr


def _bad_models(folder: Path, demo_gguf: Path) -> dict[str, tuple[Path, str]]:
    whole = demo_gguf.read_bytes()
    truncated, foreign, text = folder / "cut.gguf", folder / "llama.gguf", folder / "text.gguf"
    truncated.write_bytes(whole[: len(whole) * 2 // 3])
    foreign.write_bytes(whole.replace(b"\x06\0\0\0\0\0\0\0gemma2", b"\x06\0\0\0\0\0\0\0gemma3", 1))
    text.write_text("hello")
    return {
        "truncated": (truncated, "truncated GGUF"),
        "foreign": (foreign, "architecture 'gemma3', expected 'gemma2'"),
        "text": (text, "not a GGUF file"),
        "missing": (folder / "none.gguf", "is not a file, a folder or the name of a model"),
        "no checkpoint": (folder, "config.json"),
    }


@pytest.mark.parametrize("case", ["truncated", "foreign", "text", "missing", "no checkpoint"])
@pytest.mark.parametrize("command", ["run", "chat", "tokenize"])
def test_a_bad_model_is_one_line_and_exit_code_1(
    tmp_path: Path, demo_gguf: Path, case: str, command: str
) -> None:
    model, complaint = _bad_models(tmp_path, demo_gguf)[case]
    arguments = [command, model] + (["hi"] if command != "chat" else [])
    assert complaint in one_line_error(run(*arguments))


def test_an_error_with_json_is_an_object_on_standard_output(tmp_path: Path) -> None:
    result = run("run", "--json", tmp_path / "none.gguf", "hi")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "ModelNotFound"
    assert "none.gguf" in error["message"]


def test_a_defect_of_ours_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesppo.store.locate.find", lambda _: 1 / 0)
    assert "unexpected ZeroDivisionError" in one_line_error(run("tokenize", "demo", "x"))
