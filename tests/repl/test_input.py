"""The chat on a pseudo-terminal: typing, editing, completion, history, resizing."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

if os.name == "nt":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

from tests.support.pty_terminal import Terminal
from tests.support.talks import messages_of, on_terminal, record

if TYPE_CHECKING:
    from pathlib import Path

CTRL_D, CTRL_G, CTRL_J, CTRL_R, ALT_ENTER = "\x04", "\x07", "\n", "\x12", "\x1b\r"
# Adds Markdown to the answers, since the demo writes none.
ANSWERS_IN_MARKDOWN = """
import sys
from edgesppo.terminal.stream import PlainText, StyledText
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


def test_the_user_can_type_before_the_model_is_loaded(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf, "--session", "ada")
    chat.expect(">>>")
    assert b"context" not in chat.screen, "the prompt must appear before the model is loaded"
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
        "Saved as ada. To continue this chat: edgesppo chat --resume",
    ]


def test_a_resumed_chat_shows_its_last_turn(demo_gguf: Path) -> None:
    record("ada", "Who are you?", "I am the demo.", "What is my name?", "Your name is Ada.")
    for way in ([], ["--plain"]):
        chat = on_terminal(demo_gguf, "--session", "ada", *way)
        chat.expect("| answer:")
        chat.expect(">>>")
        chat.type("/delete none\n" if way else "/delete none\r")
        chat.expect("error: there is no saved chat 'none'")  # without asking before
        chat.expect(">>>")
        chat.type(CTRL_D)
        assert chat.close() == 0
        rows = chat.rows()
        begin = rows.index("(the last of 2 turns)")
        assert rows[begin + 1 : begin + 4] == [
            "  | you: What is my name?",
            "  | answer: Your name is Ada.",
            ">>> /delete none",
        ]


def test_the_history_finds_input_of_earlier_chats(demo_gguf: Path, home: Path) -> None:
    for way, keys in [
        ([], "My name is Ada.\r"),
        ([], f"{CTRL_R}name\r\r"),
        (["--plain"], f"{CTRL_R}name\r"),
    ]:
        chat = on_terminal(demo_gguf, *way)
        chat.expect("| loaded")
        chat.expect(">>>")
        chat.type(keys)
        chat.expect("Nice to meet you, Ada.")
        chat.expect(">>>")
        chat.type(CTRL_D)
        assert chat.close() == 0
    assert (home / "history").stat().st_mode & 0o777 == 0o600


def test_the_terminal_may_change_its_size(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf, "--session", "ada", columns=200, lines=60)
    chat.expect("| loaded")
    chat.type("What is the capital")
    chat.resize(44, 12)
    chat.type(" of France?\r")
    chat.expect("Paris")
    chat.expect("t/s | ada")
    assert re.fullmatch(r"\d+ of 512 tokens, \d+% \| [\d,.]+ t/s \| ada", chat.rows()[-1])
    chat.resize(14, 12)
    chat.expect("% | ada")
    chat.type(CTRL_D)
    assert chat.close() == 0


def test_a_message_may_have_many_lines(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf, "--session", "lines")
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
    asked = messages_of("lines")[::2]
    assert asked == ["one\ntwo\nthree", "pasted\nover\nlines", "quoted\n\nby three"]


def test_commands_and_names_are_completed_with_a_description(demo_gguf: Path) -> None:
    for name in ("rome-trip", "ada"):
        record(name, "Where?", "There.")
    chat = on_terminal(demo_gguf)
    chat.expect("| loaded")
    chat.type("/s")
    chat.expect("list the saved chats")
    assert any("/set" in row and "the sampling parameters" in row for row in chat.rows())
    chat.type("et temp")
    chat.expect("how random")
    chat.type("\t")
    chat.expect("erature")
    chat.type(" 0.5\r")
    chat.expect("temperature  0.5  how random; 0: the most probable token (0, 0.0001 to 100)")
    chat.type("/load ro")
    chat.expect("just now")
    chat.type("\t")
    chat.expect("me-trip")
    chat.type("\r")
    chat.expect("Resumed 'rome-trip': 1 turn")
    chat.type(CTRL_D)
    assert chat.close() == 0


def test_a_message_is_written_in_the_editor(demo_gguf: Path, tmp_path: Path) -> None:
    script = tmp_path / "editor.sh"
    script.write_text('#!/bin/sh\nprintf "My name is Ada." > "$1"\n')
    script.chmod(0o755)
    chat = on_terminal(demo_gguf, EDITOR=str(script))
    chat.expect("| loaded")
    chat.type("to be replaced" + CTRL_G)
    chat.expect("My name is Ada.")
    chat.type("\r")
    chat.expect("Nice to meet you, Ada.")
    chat.type(CTRL_D)
    assert chat.close() == 0


@pytest.mark.parametrize("way", [{"TERM": "dumb"}, {"options": ["--plain"]}])
def test_plain_redraws_nothing(demo_gguf: Path, way: dict[str, Any]) -> None:
    chat = on_terminal(demo_gguf, *way.pop("options", []), **way)
    chat.expect(">>>")
    chat.type('"""What is\n')
    chat.expect("...")
    chat.type('my name?"""\n')
    chat.expect("name")
    chat.expect(">>>")
    chat.interrupt("(to quit, press Ctrl-D or type /exit)")
    chat.expect(">>>")
    chat.type(CTRL_D)
    assert chat.close() == 0
    assert "(to quit, press Ctrl-D or type /exit)" in chat.rows()
    assert any(row.startswith("Saved as") for row in chat.rows())
    # The only escapes are readline's, for bracketed paste.
    assert re.findall(rb"\x1b(?!\[\?2004[hl])", chat.screen) == []
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


def test_the_status_line_tells_that_a_message_is_too_long_before_it_is_sent(
    demo_gguf: Path,
) -> None:
    chat = on_terminal(demo_gguf)
    chat.expect("| loaded")
    chat.type("\x1b[200~" + "word " * 100 + "\x1b[201~")
    chat.expect("this message:")
    chat.type("\x1b[200~" + "word " * 800 + "\x1b[201~")
    chat.expect("this message is too long:")
    chat.type("\x03")
    chat.expect("(to quit, press Ctrl-D")
    chat.type("\x04")
    assert chat.close() == 0


def test_pasted_colour_codes_do_not_end_the_chat(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf)
    chat.expect(">>>")
    chat.expect("context 512")
    chat.type("\x1b[31mWho \x1b[Mabcare you?\r")
    chat.expect("t/s")
    chat.type(CTRL_D)
    assert chat.close() == 0
    assert b"Traceback" not in chat.screen
