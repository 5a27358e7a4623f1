"""The chat on a real terminal: a pseudo-terminal with a person's keys."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.prompt import Message
from edgesppo.sessions import Sessions
from edgesppo.transcript import Conversation, ModelMark
from edgesppo_convert import convert
from tests.checkpoints import SHAPES, resized, write_checkpoint

if os.name == "nt":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

from tests.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

CTRL_C, CTRL_D, CTRL_G, CTRL_J, CTRL_R, ALT_ENTER = "\x03", "\x04", "\x07", "\n", "\x12", "\x1b\r"
# The demo writes no Markdown: the pieces of its answer are set in it.
ANSWERS_IN_MARKDOWN = """
import sys
from edgesppo.repl import stream
from edgesppo.repl.stream import PlainText, StyledText
for kind in (PlainText, StyledText):
    kind.finish = lambda self, finish=kind.finish: (self.feed(" and `code`"), finish(self))
from edgesppo.cli import main
main(["chat", sys.argv[1]])
"""
COLOURS = re.compile(rb"\x1b\[[0-9;]*[34]\d[0-9;]*m")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights babble on, and have a context long enough for a person to lose patience."""
    folder = tmp_path_factory.mktemp("babbler")
    shape = resized(SHAPES["tiny"], context=8192)
    return convert(write_checkpoint(folder / "babbler", shape), folder / "babbler.gguf").output


def _chat(model: Path, *options: str, **terminal: Any) -> Terminal:
    words = ["chat", str(model), "--temperature", "0", *options]
    return Terminal([sys.executable, "-m", "edgesppo", *words], **terminal)


def _messages(name: str) -> list[str]:
    with Sessions().open(name) as session:
        assert session.transcript is not None
        return [part for turn in session.transcript.turns for part in (turn.user, turn.assistant)]


def _record(name: str, *texts: str) -> None:
    """A chat that another model had."""
    said = zip(("user", "assistant") * len(texts), texts, strict=False)
    messages = tuple(Message(role, text) for role, text in said)
    with Sessions().open(name) as session:
        by = ModelMark("m", "m.gguf", "0" * 64, 512)
        session.record(Conversation(by, None, {}, messages, 0))


def test_a_person_may_type_before_the_model_is_there(demo_gguf: Path) -> None:
    chat = _chat(demo_gguf, "--session", "ada")
    chat.expect(">>>")
    assert b"context" not in chat.screen, "the prompt comes before the model"
    chat.type("My name is Ada.\r")
    chat.expect("Nice to meet you, Ada.")
    chat.expect("t/s | ada")
    status = chat.rows()[-1]
    assert re.fullmatch(
        rf"{demo_gguf.stem} \| \d+ of 512 tokens, \d+% \| [\d,.]+ t/s \| ada", status
    )
    chat.type("What is my name?\r")
    chat.expect("Your name is Ada.")
    chat.expect(">>>")
    chat.type(CTRL_D)
    assert chat.close() == 0
    rows = chat.rows()
    assert any("context 512" in row for row in rows)
    begin = rows.index(">>> My name is Ada.")
    assert rows[begin + 1 :][-5:] == [
        "Nice to meet you, Ada.",
        ">>> What is my name?",
        "Your name is Ada.",
        ">>>",
        "Saved as ada; edgesppo chat --resume goes on with it.",
    ]


def test_a_chat_that_goes_on_shows_where_it_was(demo_gguf: Path) -> None:
    _record("ada", "Who are you?", "I am the demo.", "What is my name?", "Your name is Ada.")
    for way in ([], ["--plain"]):
        chat = _chat(demo_gguf, "--session", "ada", *way)
        chat.expect("| answer:")
        chat.expect(">>>")
        chat.type("/delete none\n" if way else "/delete none\r")
        chat.expect("error: there is no saved chat 'none'")  # and no question before
        chat.expect(">>>")
        chat.type(CTRL_D)
        assert chat.close() == 0
        rows = chat.rows()
        begin = rows.index("(the last of 2 turns, shown once more)")
        assert rows[begin + 1 : begin + 4] == [
            "  | you: What is my name?",
            "  | answer: Your name is Ada.",
            ">>> /delete none",
        ]


def test_what_was_typed_in_an_earlier_chat_is_found_again(demo_gguf: Path, home: Path) -> None:
    for way, keys in [
        ([], "My name is Ada.\r"),
        ([], f"{CTRL_R}name\r\r"),
        (["--plain"], f"{CTRL_R}name\r"),
    ]:
        chat = _chat(demo_gguf, *way)
        chat.expect("| loaded")
        chat.expect(">>>")
        chat.type(keys)
        chat.expect("Nice to meet you, Ada.")
        chat.expect(">>>")
        chat.type(CTRL_D)
        assert chat.close() == 0
    assert (home / "history").stat().st_mode & 0o777 == 0o600


def test_the_terminal_may_change_its_size(demo_gguf: Path) -> None:
    chat = _chat(demo_gguf, "--session", "ada", columns=200, lines=60)
    chat.expect("| loaded")
    chat.type("What is the capital")
    chat.resize(40, 12)
    chat.type(" of France?\r")
    chat.expect("Paris")
    chat.expect("t/s | ada")
    assert re.fullmatch(r"\d+ of 512 tokens, \d+% \| [\d,.]+ t/s \| ada", chat.rows()[-1])
    chat.resize(14, 12)
    chat.expect("% | ada")
    chat.type(CTRL_D)
    assert chat.close() == 0


def test_a_message_may_have_many_lines(demo_gguf: Path) -> None:
    chat = _chat(demo_gguf, "--session", "lines")
    chat.expect(">>>")
    for keys in (
        f"one{ALT_ENTER}two{CTRL_J}three\r",
        "\x1b[200~pasted\nover\nlines\x1b[201~\r",
        '"""\rquoted\r\rby three"""\r',
    ):
        chat.type(keys)
        chat.expect("t/s | lines")
    chat.type(CTRL_D)
    assert chat.close() == 0
    asked = _messages("lines")[::2]
    assert asked == ["one\ntwo\nthree", "pasted\nover\nlines", "quoted\n\nby three"]


def test_commands_and_names_are_completed_with_a_word_on_each(demo_gguf: Path) -> None:
    for name in ("rome-trip", "ada"):
        _record(name, "Where?", "There.")
    chat = _chat(demo_gguf)
    chat.expect("| loaded")
    chat.type("/s")
    chat.expect("the saved chats")
    assert any("/set" in row and "how answers are drawn" in row for row in chat.rows())
    chat.type("et temp")
    chat.expect("always takes the most probable token")
    chat.type("\t")
    chat.expect("erature")
    chat.type(" 0.5\r")
    chat.expect("temperature  0.5  0 always takes the most probable token (0, 0.0001 to 100)")
    chat.type("/load ro")
    chat.expect("1 turn, ")
    chat.type("\t")
    chat.expect("me-trip")
    chat.type("\r")
    chat.expect("Resumed 'rome-trip': 1 turn")
    chat.type(CTRL_D)
    assert chat.close() == 0


def test_ctrl_c_at_the_prompt_says_how_to_leave_and_twice_leaves(demo_gguf: Path) -> None:
    chat = _chat(demo_gguf)
    chat.expect(">>>")
    chat.type("half a thought" + CTRL_C)
    chat.expect("(Ctrl-D or /exit leaves)")
    chat.type("/help\r")
    chat.expect("/regen")
    chat.expect("Ctrl-R")
    chat.expect(">>>")
    chat.type(CTRL_C + CTRL_C)
    assert chat.close() == 0


def test_ctrl_c_stops_an_answer_which_can_go_on(babbler: Path, tmp_path: Path) -> None:
    chat = _chat(babbler, "--session", "babble", "--max-tokens", "8000")
    chat.expect("| loaded")
    chat.type("Hello\r")
    chat.expect("Hello")
    chat.wait_for_more(500)
    chat.type(CTRL_C)
    chat.expect("(stopped; /continue goes on)")
    chat.expect(">>>")
    first = _exported(chat, tmp_path / "first.json")
    chat.type("/continue\r")
    chat.expect("/continue")
    chat.wait_for_more(500)
    chat.type(CTRL_C)
    chat.expect("(stopped; /continue goes on)")
    chat.type(CTRL_D)
    assert chat.close() == 0
    asked, answer = _messages("babble")
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
    chat = _chat(babbler, "--max-tokens", "8000", cwd=tmp_path)
    chat.expect("| loaded")
    chat.type("/read long.txt\r")
    chat.expect("tokens; it goes with the next message")
    chat.type("Sum it up.\r")
    chat.expect("reading the prompt")
    chat.type(CTRL_C)
    chat.expect("(stopped before the first word)")
    chat.expect(">>> Sum it up.")
    chat.type(CTRL_C + CTRL_D)
    assert chat.close() == 0
    assert Sessions().entries() == []


def test_a_message_is_written_in_the_editor(demo_gguf: Path, tmp_path: Path) -> None:
    script = tmp_path / "editor.sh"
    script.write_text('#!/bin/sh\nprintf "My name is Ada." > "$1"\n')
    script.chmod(0o755)
    chat = _chat(demo_gguf, EDITOR=str(script))
    chat.expect("| loaded")
    chat.type("to be replaced" + CTRL_G)
    chat.expect("My name is Ada.")
    chat.type("\r")
    chat.expect("Nice to meet you, Ada.")
    chat.type(CTRL_D)
    assert chat.close() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_an_answer_loses_nothing(babbler: Path, number: int) -> None:
    chat = _chat(babbler, "--session", "babble", "--max-tokens", "8000")
    chat.expect("| loaded")
    chat.type("Hello\r")
    chat.expect("Hello")
    chat.wait_for_more(300)
    chat.process.send_signal(number)
    assert chat.close() == 128 + number
    assert len(_messages("babble")[1]) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_pipe_and_keeps_what_came(babbler: Path, home: Path, number: int) -> None:
    words = ["chat", str(babbler), "--session", "piped", "--max-tokens", "8000"]
    with subprocess.Popen(
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
    asked, answer = _messages("piped")
    assert asked == "Hello"
    assert answer
    assert not [*(home / "sessions").glob(".*.lock")]


def test_a_question_shows_a_files_name_and_obeys_none_of_it(
    demo_gguf: Path, tmp_path: Path
) -> None:
    _record("ada", "Who are you?", "I am the demo.")
    (tmp_path / "a\x1b]0;owned\x07.md").write_text("before")
    chat = _chat(demo_gguf, "--session", "ada", cwd=tmp_path)
    chat.expect("| loaded")
    chat.type("\x1b[200~/export a\x1b]0;owned\x07.md\x1b[201~\r")
    chat.expect("Replace a\\x1b]0;owned\\x07.md? [y/N]")
    chat.type("n\r")
    chat.expect("(nothing written)")
    chat.type(CTRL_D)
    assert chat.close() == 0
    assert b"\x1b]0;owned" not in chat.screen
    assert [path.read_text() for path in tmp_path.glob("*.md")] == ["before"]


def test_a_draft_with_a_stray_byte_does_not_break_the_editor(demo_gguf: Path) -> None:
    chat = _chat(demo_gguf, EDITOR="true")
    chat.expect("| loaded")
    chat.type("caf\udce9" + CTRL_G)
    chat.expect("error: the message has a lone surrogate")
    chat.expect(">>> caf")
    chat.type(CTRL_C)
    chat.expect("(Ctrl-D or /exit leaves)")
    chat.expect(">>>")
    chat.type(CTRL_D)
    assert chat.close() == 0
    assert b"Traceback" not in chat.screen


def test_a_closed_window_loses_nothing(demo_gguf: Path) -> None:
    chat = _chat(demo_gguf, "--session", "ada")
    chat.expect("| loaded")
    chat.type("My name is Ada.\r")
    chat.expect("t/s | ada")
    chat.type("not sent")
    # It may see the end of its input before the signal.
    assert chat.abandon() in (0, 128 + signal.SIGHUP)
    assert _messages("ada") == ["My name is Ada.", "Nice to meet you, Ada."]


@pytest.mark.parametrize("way", [{"TERM": "dumb"}, {"options": ["--plain"]}])
def test_plain_draws_nothing_twice(demo_gguf: Path, way: dict[str, Any]) -> None:
    chat = _chat(demo_gguf, *way.pop("options", []), **way)
    chat.expect(">>>")
    chat.type('"""What is\n')
    chat.expect("...")
    chat.type('my name?"""\n')
    chat.expect("name")
    chat.expect(">>>")
    chat.type(CTRL_C)
    chat.expect("(Ctrl-D or /exit leaves)")
    chat.expect(">>>")
    chat.type(CTRL_D)
    assert chat.close() == 0
    assert "(Ctrl-D or /exit leaves)" in chat.rows()
    assert any(row.startswith("Saved as") for row in chat.rows())
    assert re.findall(rb"\x1b(?!\[\?2004[hl])", chat.screen) == []  # readline's pasting apart
    assert b"t/s" not in chat.screen


@pytest.mark.parametrize(("value", "rendered"), [("1", False), ("", True)])
def test_without_colour_nothing_is_coloured_or_rendered(
    demo_gguf: Path, value: str, rendered: bool
) -> None:
    chat = Terminal([sys.executable, "-c", ANSWERS_IN_MARKDOWN, str(demo_gguf)], NO_COLOR=value)
    chat.expect("| loaded")
    chat.type("hi\r")
    chat.expect("t/s")
    chat.type(CTRL_D)
    assert chat.close() == 0
    assert bool(COLOURS.search(chat.screen)) is rendered
    assert ("`code`" in "\n".join(chat.rows())) is not rendered


def test_a_model_that_cannot_be_loaded_ends_the_chat_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_text("no model")
    _record("ada", "What is this?", "A chat.")
    chat = _chat(bad, "--session", "ada")
    chat.expect("not a GGUF file")
    assert chat.close() == 1
    assert b"Saved as" not in chat.screen
    assert b"Traceback" not in chat.screen
    assert not [row for row in chat.rows() if ">>>" in row]
