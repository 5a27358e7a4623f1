"""The command line: whole transcripts, exit codes, JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from edgesppo import structured, text_file, tune
from edgesppo._llama import can_offload
from edgesppo.chat import Chat
from edgesppo.cli import COMMANDS, main
from edgesppo.cli.common import GOALS
from edgesppo.cli.run import answer
from tests.conftest import DEMO

if TYPE_CHECKING:
    from collections.abc import Generator

    from edgesppo.generate import Chunk
    from edgesppo.loaded import LoadedModel

GREEDY = ["--temperature", "0"]
CAPITAL = "What is the capital of France?"


def _run(*args: str | Path, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], input=stdin)


def _one_line_error(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("edgesppo: ")
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {command}")


def test_run_prints_the_answer_alone_and_the_figures_beside_it(demo_gguf: Path) -> None:
    result = _run("run", demo_gguf, CAPITAL, *GREEDY)
    assert result.exit_code == 0
    assert "Paris" in result.stdout
    assert "t/s" not in result.stdout
    assert "decode" in result.stderr
    assert "t/s" in result.stderr


def test_run_json_is_one_object_of_the_documented_shape(demo_gguf: Path) -> None:
    result = _run("run", demo_gguf, CAPITAL, "--json", *GREEDY)
    found = json.loads(result.stdout)
    assert list(found) == ["text", "finish_reason", "usage", "timings", "model"]
    assert "Paris" in found["text"]
    assert found["finish_reason"] == "stop"
    assert list(found["usage"]) == ["prompt_tokens", "cached_tokens", "completion_tokens"]
    assert list(found["timings"]) == ["load_s", "ttft_s", "prefill_tps", "decode_tps"]
    assert found["model"] == {"name": demo_gguf.stem, "path": str(demo_gguf)}


def test_run_takes_its_prompt_from_a_pipe(demo_gguf: Path) -> None:
    assert "Paris" in _run("run", demo_gguf, *GREEDY, stdin=CAPITAL + "\n").stdout


def test_run_joins_the_prompt_and_the_pipe(demo_gguf: Path) -> None:
    both = _run("run", demo_gguf, "Be brief.", *GREEDY, "--json", stdin=CAPITAL)
    one = _run("run", demo_gguf, f"Be brief.\n\n{CAPITAL}", *GREEDY, "--json")
    assert json.loads(both.stdout)["text"] == json.loads(one.stdout)["text"]
    assert json.loads(both.stdout)["usage"] == json.loads(one.stdout)["usage"]


def test_run_without_a_model_uses_the_demo_and_says_so() -> None:
    result = _run("run", CAPITAL, *GREEDY)
    assert "Paris" in result.stdout
    assert "demo model" in result.stderr
    assert "edgesppo pull sppo-iter3 --convert" in result.stderr


@pytest.mark.parametrize(
    ("word", "meant"), [("sppo-iter4", "sppo-iter3"), ("dmo", "demo"), ("Demo", "demo")]
)
def test_a_word_that_is_almost_a_models_name_is_a_mistake(word: str, meant: str) -> None:
    result = _run("run", word, stdin=CAPITAL)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{word} is no model's name: did you mean {meant}?" in result.stderr


def test_a_command_that_is_almost_one_is_named() -> None:
    result = _run("lst")
    assert result.exit_code == 2
    assert "no such command: 'lst'; did you mean list?" in result.stderr
    assert "did you mean" not in _run("xyzzy").stderr


@pytest.mark.parametrize("command", ["run", "chat", "bench"])
def test_which_model_is_taken_without_one_is_said_alike(command: str) -> None:
    said = "Without it: the model used last; else sppo-iter3, if it is here; else the demo."
    assert said in " ".join(_run(command, "--help").output.split())


def test_the_choices_of_tune_are_those_there_are() -> None:
    assert tuple(GOALS) == tune.CHOICES


@pytest.mark.skipif(can_offload(), reason="needs a build without a GPU")
def test_layers_that_no_gpu_takes_are_said_to_stay(demo_gguf: Path) -> None:
    result = _run("tokenize", demo_gguf, "x", "--json")
    assert "GPU" not in result.stderr
    result = _run("run", demo_gguf, "hi", "--gpu", "5", *GREEDY)
    assert result.exit_code == 0
    assert "--gpu 5: no GPU that this build can use; the CPU computes" in result.stderr
    assert "no GPU" not in _run("run", demo_gguf, "hi", "--gpu", "0", *GREEDY).stderr


@pytest.mark.parametrize("word", ["typo.gguf", "./model", "a/b/c"])
def test_what_is_written_like_a_path_is_never_taken_for_a_prompt(word: str) -> None:
    assert "is no file, no folder" in _one_line_error(_run("run", word, stdin=CAPITAL))


def test_a_file_that_happens_to_lie_around_is_never_taken_for_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Hello").write_text("a note")
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "Using the tiny demo" in _run("run", "Hello", *GREEDY).stderr
    assert _run("try").exit_code == 0


def test_run_with_a_model_alone_needs_a_prompt(demo_gguf: Path) -> None:
    result = _run("run", demo_gguf)
    assert result.exit_code == 2
    assert "no prompt" in result.stderr


@pytest.mark.parametrize("model", ["x" * 300, "a" * 5000 + ".gguf", "nul\0.gguf", "~nobody/x.gguf"])
def test_a_name_that_no_file_can_have_is_one_line(model: str) -> None:
    line = _one_line_error(_run("tokenize", model, "x"))
    assert "is no file" in line
    assert len(line) < 400


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("option", [["hi"], ["hi", "--json"], ["--n-ctx", "9999", "hi", "--json"]])
def test_a_full_disk_behind_the_output_is_one_line(demo_gguf: Path, option: list[str]) -> None:
    command = [sys.executable, "-m", "edgesppo", "run", str(demo_gguf), *option]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"edgesppo: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_answer_stands_where_nothing_can_be_said_beside_it(demo_gguf: Path) -> None:
    command = [sys.executable, "-m", "edgesppo", "run", str(demo_gguf), "hi", *GREEDY]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=full
        )
    assert (done.returncode, done.stdout) == (0, b"Hello! How can I help you?\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes")
def test_a_closed_stream_is_no_defect_and_no_file_takes_its_number(demo_gguf: Path) -> None:
    shell = f"{sys.executable} -m edgesppo run {demo_gguf} hi --temperature 0 </dev/null"
    silent = subprocess.run(["sh", "-c", f"{shell} 2>&-"], check=False, capture_output=True)
    assert (silent.returncode, silent.stdout) == (0, b"Hello! How can I help you?\n")
    lost = subprocess.run(["sh", "-c", f"{shell} >&-"], check=False, capture_output=True)
    assert (lost.returncode, lost.stderr) == (1, b"edgesppo: Bad file descriptor\n")
    lost = subprocess.run(["sh", "-c", f"{shell} --json >&-"], check=False, capture_output=True)
    assert (lost.returncode, lost.stderr) == (1, b"edgesppo: Bad file descriptor\n")


def test_a_closed_standard_input_is_no_defect(demo_gguf: Path) -> None:
    shell = f"{sys.executable} -m edgesppo chat {demo_gguf} <&-"
    done = subprocess.run(["sh", "-c", shell], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert "defect" not in done.stderr


SENSELESS = """--n-ctx 0 / --n-ctx 99999999999 / --threads 0 / --cache-type f8 / --tune fast
/ --gpu x / --gpu -1 / --gpu 10001 / --gpu 99999999999999999999"""


@pytest.mark.parametrize("option", [option.split() for option in SENSELESS.split("/")])
def test_a_senseless_setting_is_a_usage_error(demo_gguf: Path, option: list[str]) -> None:
    assert _run("run", demo_gguf, "x", *option).exit_code == 2


def test_run_without_a_prompt_is_a_usage_error(demo_gguf: Path) -> None:
    result = _run("run", demo_gguf, "")
    assert result.exit_code == 2
    assert "no prompt" in result.stderr


def test_tokenize_gives_ids_and_pieces(demo_gguf: Path) -> None:
    found = json.loads(_run("tokenize", demo_gguf, "Hi <eos>", "--json").stdout)
    assert list(found) == ["ids", "pieces"]
    assert "".join(found["pieces"]) == "Hi <eos>"
    assert 1 not in found["ids"]


def test_tokenize_chat_gives_a_whole_turn(demo_gguf: Path) -> None:
    found = json.loads(_run("tokenize", demo_gguf, "Hi", "--chat", "--json").stdout)
    text = "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    assert "".join(found["pieces"]) == text


def test_tokenize_takes_a_checkpoint_folder() -> None:
    result = _run("tokenize", DEMO, "Hi")
    assert result.exit_code == 0
    assert "'Hi'" in result.stdout


def test_try_asks_one_question_away_from_a_terminal() -> None:
    result = _run("try")
    assert result.exit_code == 0
    assert "edgesppo" in result.stdout
    assert "> Who are you?" in result.stderr


def test_chat_takes_a_message_a_line_away_from_a_terminal(demo_gguf: Path) -> None:
    lines = "My name is Ada.\nWhat is my name?\n/exit\nnot read\n"
    result = _run("chat", demo_gguf, *GREEDY, stdin=lines)
    assert result.exit_code == 0
    assert "Ada" in result.stdout.splitlines()[1]
    assert len(result.stdout.splitlines()) == 2


def test_chat_goes_on_after_an_error_in_a_turn(demo_gguf: Path) -> None:
    lines = "word " * 3000 + f"\n/nonsense\n/undo\n{CAPITAL}\n"
    result = _run("chat", demo_gguf, *GREEDY, stdin=lines)
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
        "missing": (folder / "none.gguf", "is no file, no folder and no model's name"),
        "no checkpoint": (folder, "config.json"),
    }


@pytest.mark.parametrize("case", ["truncated", "foreign", "text", "missing", "no checkpoint"])
@pytest.mark.parametrize("command", ["run", "chat", "tokenize"])
def test_a_bad_model_is_one_line_and_exit_code_1(
    tmp_path: Path, demo_gguf: Path, case: str, command: str
) -> None:
    model, complaint = _bad_models(tmp_path, demo_gguf)[case]
    arguments = [command, model] + (["hi"] if command != "chat" else [])
    assert complaint in _one_line_error(_run(*arguments))


def test_an_error_with_json_is_an_object_on_standard_output(tmp_path: Path) -> None:
    result = _run("run", "--json", tmp_path / "none.gguf", "hi")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "ModelNotFound"
    assert "none.gguf" in error["message"]


def test_piped_text_that_is_not_utf8_is_refused(demo_gguf: Path) -> None:
    line = _one_line_error(_run("run", demo_gguf, stdin=b"a\xff"))
    assert "standard input is no UTF-8 text: byte b'\\xff' at position 1" in line


def test_piped_text_is_read_as_a_file_is(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = b"\xef\xbb\xbfWhat is the capital\r\nof France?\r\n"
    (tmp_path / "file").write_bytes(marked)
    plain = _run("run", demo_gguf, "What is the capital\nof France?", *GREEDY, "--json")
    ways: list[tuple[tuple[str | Path, ...], bytes]] = [
        ((), marked),
        (("-f", "-"), marked),
        (("-f", tmp_path / "file"), b""),
    ]
    for more, stdin in ways:
        found = json.loads(_run("run", demo_gguf, *more, *GREEDY, "--json", stdin=stdin).stdout)
        assert found["text"] == json.loads(plain.stdout)["text"]
        assert found["usage"] == json.loads(plain.stdout)["usage"]
    monkeypatch.setattr(text_file, "MAX_BYTES", 10)
    large = _one_line_error(_run("run", demo_gguf, stdin="x" * 11))
    assert "standard input has more than 10 bytes" in large


def test_standard_input_stands_where_it_is_named_and_once(demo_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of France?")
    named = ("-f", "-", "-f", tmp_path / "file")
    found = _run("run", demo_gguf, *named, *GREEDY, "--json", stdin="What is the capital")
    plain = _run("run", demo_gguf, "What is the capital\n\nof France?", *GREEDY, "--json")
    assert json.loads(found.stdout)["usage"] == json.loads(plain.stdout)["usage"]
    twice = _run("run", demo_gguf, "-f", "-", "-f", "-", stdin=CAPITAL)
    assert twice.exit_code == 2
    assert "can be read once" in twice.stderr


@pytest.mark.parametrize(("stdin", "said"), [(subprocess.PIPE, True), (subprocess.DEVNULL, False)])
def test_an_empty_pipe_is_mentioned(demo_gguf: Path, stdin: int, said: bool) -> None:
    command = [sys.executable, "-m", "edgesppo", "run", str(demo_gguf), "hi", *GREEDY]
    with subprocess.Popen(command, stdin=stdin, stdout=-1, stderr=-1) as process:
        output, errors = process.communicate()
    assert output == b"Hello! How can I help you?\n"
    assert (b"edgesppo: what was piped in is empty\n" in errors) == said


def test_a_defect_of_ours_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesppo.store.find", lambda _: 1 / 0)
    assert "unexpected ZeroDivisionError" in _one_line_error(_run("tokenize", "demo", "x"))


def test_ctrl_c_prints_what_came_and_exits_with_130(demo_gguf: Path) -> None:
    command = [sys.executable, "-m", "edgesppo", "run", str(demo_gguf), "Hello", "--seed", "1"]
    # Hot enough never to hit an end token, so that the answer runs until the context is full.
    command += ["--temperature", "50", "--top-p", "1", "--max-tokens", "100000"]
    with _started(command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, errors = process.stdout.read(), process.stderr.read()
        process.wait(timeout=60)
    assert first
    assert b"Traceback" not in errors
    if b"cut at the limit" in errors:
        pytest.skip("the answer was over before the signal came")
    assert process.returncode == 130
    assert b"stopped" in errors
    assert rest.endswith(b"\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_prints_what_came_of_an_answer_with_a_schema(
    demo: LoadedModel, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    class Interrupted(Chat):
        def stream(self, text: str, **sampling: Any) -> Generator[Chunk, None, None]:
            chunks = super().stream(text, **sampling)
            for chunk in chunks:
                if chunk.text:
                    chunks.throw(KeyboardInterrupt)
                yield chunk

    chat = Interrupted(demo.engine, demo.defaults.replace(temperature=0))
    wanted = structured.wanted({"type": "array", "items": {"type": "integer"}, "minItems": 9})
    with pytest.raises(SystemExit) as caught:
        answer(demo, chat, "hi", as_json=as_json, wanted=wanted)
    assert caught.value.code == 130
    out = capsys.readouterr().out
    assert chat.last.text.startswith("[")
    if as_json:
        found = json.loads(out)
        assert (found["text"], found["finish_reason"]) == (chat.last.text, "cancelled")
        assert "value" not in found
    else:
        assert out == chat.last.text + "\n"


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    environment: dict[str, Any] = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def test_a_closed_pipe_ends_quietly(demo_gguf: Path) -> None:
    command = [sys.executable, "-m", "edgesppo", "run", str(demo_gguf), "Who are you?"]
    with _started(command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.wait(timeout=60)
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
