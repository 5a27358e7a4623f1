"""Ending a chat: Ctrl-C, signals, closed terminals, failed loads, hostile file names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.sessions.folder import Sessions
from edgesppo.system.signals import raise_on_termination

if os.name == "nt":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

from tests.support.command_line import ENDLESS, started
from tests.support.pty_terminal import Terminal
from tests.support.talks import messages_of, on_terminal, record

if TYPE_CHECKING:
    from pathlib import Path


CTRL_C, CTRL_D, CTRL_G, UP = "\x03", "\x04", "\x07", "\x1b[A"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_ctrl_c_at_the_prompt_says_how_to_quit_and_twice_quits(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf)
    chat.expect(">>>")
    chat.type("half a thought" + CTRL_C)
    chat.expect("(to quit, press Ctrl-D or type /exit)")
    chat.type("/help keys\r")
    chat.expect("Ctrl-R")
    chat.expect(">>>")
    chat.type(CTRL_C + CTRL_C)
    assert chat.close() == 0


def test_ctrl_c_stops_an_answer_which_can_go_on(babbler: Path, tmp_path: Path) -> None:
    chat = on_terminal(babbler, "--session", "babble", *ENDLESS)
    chat.expect("| loaded")
    chat.type("Hello\r")
    chat.expect("Hello")
    chat.wait_for_more(500)
    chat.type(CTRL_C)
    chat.expect("(stopped; /continue resumes the answer)")
    chat.expect(">>>")
    first = _exported(chat, tmp_path / "first.json")
    chat.type("/continue\r")
    chat.expect("/continue")
    chat.wait_for_more(500)
    chat.type(CTRL_C)
    chat.expect("(stopped; /continue resumes the answer)")
    chat.type(CTRL_D)
    assert chat.close() == 0
    asked, answer = messages_of("babble")
    assert asked == "Hello"
    assert len(answer) > len(first[-1]) > 0
    assert answer.startswith(first[-1])


def _exported(chat: Terminal, file: Path) -> list[str]:
    chat.type(f"/export {file}\r")
    chat.expect("(wrote")
    chat.expect(">>>")
    return [message["content"] for message in json.loads(file.read_text())["messages"]]


def test_ctrl_c_stops_a_prompt_and_gives_the_message_back(babbler: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("word " * 1300)
    chat = on_terminal(babbler, *ENDLESS, cwd=tmp_path)
    chat.expect("| loaded")
    chat.type("/read long.txt\r")
    chat.expect("tokens, attached to the next message")
    chat.type("Sum it up.\r")
    chat.expect("processing the prompt")
    chat.type(CTRL_C)
    chat.expect("(stopped before the first word)")
    chat.expect("(long.txt is still attached; /undo removes it)")
    chat.expect("the Up key brings it back")
    chat.expect(">>>")
    chat.type(UP)
    chat.expect("Sum it up.")
    chat.type(CTRL_C + CTRL_D)
    assert chat.close() == 0
    assert Sessions().entries() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_an_answer_loses_nothing(babbler: Path, number: int) -> None:
    chat = on_terminal(babbler, "--session", "babble", *ENDLESS)
    chat.expect("| loaded")
    chat.type("Hello\r")
    chat.expect("Hello")
    chat.wait_for_more(300)
    chat.process.send_signal(number)
    assert chat.close() == 128 + number
    assert len(messages_of("babble")[1]) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_pipe_and_keeps_the_answer_so_far(
    babbler: Path, home: Path, number: int
) -> None:
    words = ["chat", str(babbler), "--session", "piped", *ENDLESS]
    with started(
        [sys.executable, "-m", "edgesppo", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"Hello\nand\nmore\n")
        chat.stdin.flush()
        chat.stdout.read(100)
        chat.send_signal(number)
        _, said = chat.communicate(timeout=20)
    assert chat.returncode == 128 + number, said
    assert b"Traceback" not in said
    asked, answer = messages_of("piped")
    assert asked == "Hello"
    assert answer
    assert not [*(home / "sessions").glob(".*.lock")]


def test_a_question_escapes_control_characters_in_a_file_name(
    demo_gguf: Path, tmp_path: Path
) -> None:
    record("ada", "Who are you?", "I am the demo.")
    (tmp_path / "a\x1b]0;owned\x07.md").write_text("before")
    chat = on_terminal(demo_gguf, "--session", "ada", cwd=tmp_path)
    chat.expect("| loaded")
    chat.type("\x1b[200~/export a\x1b]0;owned\x07.md\x1b[201~\r")
    chat.expect("Overwrite a\\x1b]0;owned\\x07.md? [y/N]")
    chat.type("n\r")
    chat.expect("(nothing written)")
    chat.type(CTRL_D)
    assert chat.close() == 0
    assert b"\x1b]0;owned" not in chat.screen
    assert [path.read_text() for path in tmp_path.glob("*.md")] == ["before"]


def test_a_draft_with_a_stray_byte_does_not_break_the_editor(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf, EDITOR="true")
    chat.expect("| loaded")
    chat.type("caf\udce9" + CTRL_G)
    chat.expect("error: the message has a lone surrogate")
    chat.expect(">>> caf")
    chat.type(CTRL_C)
    chat.expect("(to quit, press Ctrl-D or type /exit)")
    chat.expect(">>>")
    chat.type(CTRL_D)
    assert chat.close() == 0
    assert b"Traceback" not in chat.screen


def test_a_closed_window_loses_nothing(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf, "--session", "ada")
    chat.expect("| loaded")
    chat.type("My name is Ada.\r")
    chat.expect("t/s | ada")
    chat.type("not sent")
    # The process may see the end of its input before the signal.
    assert chat.abandon() in (0, 128 + signal.SIGHUP)
    assert messages_of("ada") == ["My name is Ada.", "Nice to meet you, Ada."]


def test_a_model_that_cannot_be_loaded_ends_the_chat_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_text("no model")
    record("ada", "What is this?", "A chat.")
    chat = on_terminal(bad, "--session", "ada")
    chat.expect("not a GGUF file")
    assert chat.close() == 1
    assert b"Saved as" not in chat.screen
    assert b"Traceback" not in chat.screen
    assert not [row for row in chat.rows() if ">>>" in row]


# Loading that reports no progress, like native code that measures a large model.
STUCK = """
import atexit, sys, time
from edgesppo import api
from edgesppo.cli import main
atexit.register(lambda: print("what Python frees at its own end"))
api.load = lambda *_, **__: (print("measuring", flush=True), time.sleep(60))
main(["chat", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("options", "keys", "code"), [([], CTRL_D, 0), (["--plain"], CTRL_C, 128 + signal.SIGINT)]
)
def test_quitting_while_native_code_runs_frees_nothing_it_uses(
    demo_gguf: Path, options: list[str], keys: str, code: int
) -> None:
    chat = Terminal([sys.executable, "-c", STUCK, str(demo_gguf), *options])
    while b"measuring" not in chat.screen or (not options and b">>>" not in chat.screen):
        chat.wait_for_more(1)
    chat.type(keys)
    assert chat.close() == code
    assert b"Python frees" not in chat.screen


# A disk so slow that the KV state is still being written when the user loses patience, who presses
# Ctrl-C again while the model is freed.
SLOW_DISK = """
import signal, sys, time
from edgesppo.cli import main
from edgesppo.loaded_model import LoadedModel
from edgesppo.sessions import kv_snapshot, kv_state
kv_state.SLOW_BYTES = 0
kv_snapshot.write = lambda *_: time.sleep(60)
LoadedModel.close = lambda *_: signal.raise_signal(signal.SIGINT)
main(["chat", *sys.argv[1:]])
"""


@pytest.mark.parametrize("options", [[], ["--plain"]])
def test_ctrl_c_ends_the_writing_of_the_kv_cache_and_quits(
    demo_gguf: Path, options: list[str]
) -> None:
    words = [str(demo_gguf), "--session", "ada", *options]
    chat = Terminal([sys.executable, "-c", SLOW_DISK, *words])
    chat.expect("| loaded")
    chat.expect(">>>")
    chat.type("My name is Ada.\r")
    chat.expect("Nice to meet you")
    chat.expect(">>>")
    chat.type(CTRL_D)
    chat.expect("Saving the KV cache, 0 MB (Ctrl-C: skip)")
    chat.type(CTRL_C)
    chat.expect("Saved as ada.")
    assert chat.close() == 0
    assert messages_of("ada")[0] == "My name is Ada."


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raise_on_termination():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_at_a_question_is_130_and_a_no(home: Path, demo_gguf: Path) -> None:
    copy = home / "converted" / "gone-q4_k_m-01234567-0123456789abcdef.gguf"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(demo_gguf.read_bytes())
    copy.with_suffix(".from").write_text(str(home / "no-folder"))
    terminal = Terminal([sys.executable, "-m", "edgesppo", "gc"])
    terminal.expect("[y/N]")
    terminal.interrupt("counts as no")
    assert terminal.close() == 130
    assert copy.exists()
