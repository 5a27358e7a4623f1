"""The standard streams of commands: piped input, output that cannot be written, interrupts."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.chat import structured
from edgesppo.chat.chat import Chat
from edgesppo.cli import main
from edgesppo.cli.answer import Form, answer
from edgesppo.cli.standard_streams import write_any_character
from edgesppo.system import text_input
from tests.support.command_line import CAPITAL, ENDLESS, GREEDY, one_line_error, run, started

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from edgesppo.chat.result import Chunk
    from edgesppo.loaded_model import LoadedModel


def test_run_takes_its_prompt_from_a_pipe(demo_gguf: Path) -> None:
    assert "Paris" in run("run", demo_gguf, *GREEDY, stdin=CAPITAL + "\n").stdout


def test_run_joins_the_prompt_and_the_pipe(demo_gguf: Path) -> None:
    both = run("run", demo_gguf, "Be brief.", *GREEDY, "--json", stdin=CAPITAL)
    one = run("run", demo_gguf, f"Be brief.\n\n{CAPITAL}", *GREEDY, "--json")
    assert json.loads(both.stdout)["text"] == json.loads(one.stdout)["text"]
    assert json.loads(both.stdout)["usage"] == json.loads(one.stdout)["usage"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_chat_says_that_the_output_cannot_be_written(demo_gguf: Path) -> None:
    command = [sys.executable, "-m", "edgesppo", "chat", str(demo_gguf), "--quiet"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, check=False, input=b"hi\n", stdout=full, stderr=subprocess.PIPE
        )
    said = b"error: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


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
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"]])
def test_help_that_cannot_be_written_is_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit, match="1"):
            main(words)
    error = capsys.readouterr().err
    assert error.startswith("edgesppo: ")
    assert error.endswith("No space left on device\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize("shortage", [MemoryError(), OSError(errno.ENOMEM, "no memory")])
def test_too_little_memory_is_not_called_a_defect(
    shortage: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise shortage

    monkeypatch.setattr("edgesppo.lockfile.layers.read", fail)
    error = json.loads(run("list", "--json").stdout)["error"]
    assert error["type"] == "OutOfMemory"
    assert "close other programs" in error["message"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", ["run {} hi", "chat {}"])
def test_the_answer_stands_where_nothing_can_be_said_beside_it(demo_gguf: Path, words: str) -> None:
    command = [sys.executable, "-m", "edgesppo", *words.format(demo_gguf).split(), *GREEDY]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command,
            check=False,
            input=b"hi\n" if "chat" in command else b"",
            stdout=subprocess.PIPE,
            stderr=full,
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


def test_a_closed_standard_input_is_no_defect(demo_gguf: Path, tmp_path: Path) -> None:
    shell = f"{sys.executable} -m edgesppo chat {demo_gguf} <&-"
    done = subprocess.run(["sh", "-c", shell], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert "a bug in edgesppo" not in done.stderr
    shell = f"{sys.executable} -m edgesppo batch {demo_gguf} - out.jsonl <&-"
    done = subprocess.run(
        ["sh", "-c", shell], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr


class ATerminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "written"), [(io.TextIOWrapper, "é—中".encode()), (ATerminal, b"\xe9\x97?")]
)
def test_an_encoding_that_lacks_characters_ends_no_answer(
    kind: type[io.TextIOWrapper], written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = kind(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", out)
    write_any_character()
    out.write("é—中")
    out.flush()
    assert out.buffer.getvalue() == written  # type: ignore[attr-defined]


def test_piped_text_that_is_not_utf8_is_refused(demo_gguf: Path) -> None:
    line = one_line_error(run("run", demo_gguf, stdin=b"a\xff"))
    assert "standard input is not UTF-8 text: byte b'\\xff' at position 1" in line


def test_piped_text_is_read_as_a_file_is(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = b"\xef\xbb\xbfWhat is the capital\r\nof France?\r\n"
    (tmp_path / "file").write_bytes(marked)
    plain = run("run", demo_gguf, "What is the capital\nof France?", *GREEDY, "--json")
    ways: list[tuple[tuple[str | Path, ...], bytes]] = [
        ((), marked),
        (("-f", "-"), marked),
        (("-f", tmp_path / "file"), b""),
    ]
    for more, stdin in ways:
        found = json.loads(run("run", demo_gguf, *more, *GREEDY, "--json", stdin=stdin).stdout)
        assert found["text"] == json.loads(plain.stdout)["text"]
        assert found["usage"] == json.loads(plain.stdout)["usage"]
    monkeypatch.setattr(text_input, "MAX_BYTES", 10)
    large = one_line_error(run("run", demo_gguf, stdin="x" * 11))
    assert "standard input has more than 10 bytes" in large


def test_standard_input_stands_where_it_is_named_and_once(demo_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of France?")
    named = ("-f", "-", "-f", tmp_path / "file")
    found = run("run", demo_gguf, *named, *GREEDY, "--json", stdin="What is the capital")
    plain = run("run", demo_gguf, "What is the capital\n\nof France?", *GREEDY, "--json")
    assert json.loads(found.stdout)["usage"] == json.loads(plain.stdout)["usage"]
    twice = run("run", demo_gguf, "-f", "-", "-f", "-", stdin=CAPITAL)
    assert twice.exit_code == 2
    assert "can be read once" in twice.stderr


@pytest.mark.parametrize(("stdin", "said"), [(subprocess.PIPE, True), (subprocess.DEVNULL, False)])
def test_an_empty_pipe_is_mentioned(demo_gguf: Path, stdin: int, said: bool) -> None:
    command = [sys.executable, "-m", "edgesppo", "run", str(demo_gguf), "hi", *GREEDY]
    with started(command, stdin=stdin, stdout=-1, stderr=-1) as process:
        output, errors = process.communicate(timeout=60)
    assert output == b"Hello! How can I help you?\n"
    assert (b"edgesppo: the piped input is empty\n" in errors) == said


def test_ctrl_c_prints_what_came_and_exits_with_130(babbler: Path) -> None:
    command = [sys.executable, "-m", "edgesppo", "run", str(babbler), "Hello", *ENDLESS]
    with _unbuffered(command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, errors = process.stdout.read(), process.stderr.read()
        process.wait(timeout=60)
    assert first
    assert b"Traceback" not in errors
    assert process.returncode == 130
    assert b"stopped" in errors
    assert rest.endswith(b"\n")


@pytest.mark.parametrize("form", Form)
def test_ctrl_c_prints_what_came_of_an_answer_with_a_schema(
    demo: LoadedModel, capsys: pytest.CaptureFixture[str], form: Form
) -> None:
    class Interrupted(Chat):
        def stream(self, text: str, **sampling: Any) -> Generator[Chunk, None, None]:
            chunks = super().stream(text, **sampling)
            for chunk in chunks:
                if chunk.text:
                    chunks.throw(KeyboardInterrupt)
                yield chunk

    chat = Interrupted(demo._interior.engine, demo._interior.defaults.replace(temperature=0))
    wanted = structured.answer_format(
        {"type": "array", "items": {"type": "integer"}, "minItems": 9}
    )
    with pytest.raises(SystemExit) as caught:
        answer(demo, chat, "hi", form=form, wanted=wanted)
    assert caught.value.code == 130
    out = capsys.readouterr().out
    assert chat.last.text.startswith("[")
    if form is not Form.TEXT:
        found = [json.loads(line) for line in out.splitlines()]
        assert "".join(piece["text"] for piece in found) == chat.last.text
        assert found[-1]["finish_reason"] == "cancelled"
        assert "value" not in found[-1]
        assert form is Form.LINES or len(found) == 1
    else:
        assert out == chat.last.text + "\n"


def _unbuffered(command: list[str]) -> AbstractContextManager[subprocess.Popen[bytes]]:
    environment: dict[str, Any] = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return started(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def test_a_closed_pipe_ends_quietly(demo_gguf: Path) -> None:
    command = [sys.executable, "-m", "edgesppo", "run", str(demo_gguf), "Who are you?"]
    with _unbuffered(command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.wait(timeout=60)
    assert errors == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_refused_at_once_wherever_a_file_is_named(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    name = path if kind == "pipe" else Path("/dev/zero")
    for words in (
        ["run", "demo", "hi", "-f", name],
        ["run", "demo", "hi", "--schema", name],
        ["run", name, "hi"],
        ["show", name],
        ["import", name, "--name", "mine"],
        ["list", "--lock", name],
        ["convert", name, "-o", tmp_path / "out.gguf"],
    ):
        error = one_line_error(run(*words))
        assert re.search("a pipe|a device|not a regular file", error), (words, error)
