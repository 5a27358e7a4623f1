"""What a person at the prompt sees of an error, and that no text of theirs is lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if os.name == "nt":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

from tests.support.talks import messages_of, on_terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pty_terminal import Terminal

CTRL_D, UP, PASTE, END = "\x04", "\x1b[A", "\x1b[200~", "\x1b[201~"
LONG = "\n".join(f"line {n} of a text with many lines" for n in range(90))
WIDE = "word " * 1500
TOO_LONG = "but the context holds 512"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def _visible(chat: Terminal) -> str:
    return "\n".join(chat.display.display)


def _leave(chat: Terminal) -> None:
    chat.type(CTRL_D)
    assert chat.close() == 0


@pytest.mark.parametrize("plain", [(), ("--plain",)])
def test_what_is_typed_before_the_prompt_appears_is_sent(
    demo_gguf: Path, plain: tuple[str, ...]
) -> None:
    """The terminal has made newlines of its Enter keys by then."""
    chat = on_terminal(demo_gguf, *plain)
    chat.type("My name is Ada.\rWhat is my na")
    chat.expect("| loaded")
    chat.expect("Nice to meet you")
    chat.expect(">>>")
    chat.type("me?\r")
    chat.expect("Your name is Ada.")
    chat.expect(">>>")
    _leave(chat)


@pytest.mark.parametrize("lines", [24, 10])
def test_the_error_of_a_long_message_is_on_the_screen_and_up_brings_it_back(
    demo_gguf: Path, lines: int
) -> None:
    chat = on_terminal(demo_gguf, "--session", "long", lines=lines)
    chat.expect("| loaded")
    for text in (LONG, WIDE):
        for _ in range(2):
            chat.type(f"{PASTE}{text}{END}\r")
            chat.expect("error: the prompt has")
            chat.expect("the Up key")
            chat.expect(">>>")
            chat.expect("| long")
            assert TOO_LONG in _visible(chat)
        chat.type(UP)
        chat.expect(text.split("\n")[-1][-30:].strip())
        chat.type("\r")
        chat.expect("error: the prompt has")
        chat.expect("the Up key")
        chat.expect("| long")
    chat.type("My name is Ada.\r")
    chat.expect("Nice to meet you, Ada.")
    _leave(chat)
    assert messages_of("long")[::2] == ["My name is Ada."]


def test_after_a_message_without_an_answer_a_command_can_be_typed_at_once(
    demo_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "long.txt").write_text(LONG)
    chat = on_terminal(demo_gguf, "--session", "short")
    chat.expect("| loaded")
    chat.type("/read long.txt\r")
    chat.expect("warning: this does not fit")
    chat.expect(">>>")
    chat.type("Who are you?\r")
    chat.expect("(long.txt is still attached; /undo removes it)")
    chat.expect(TOO_LONG)
    chat.expect("the Up key brings it back")
    chat.expect(">>>")
    assert TOO_LONG in _visible(chat)
    chat.type("/undo\r")
    chat.expect("(removed the file long.txt)")
    chat.expect(">>>")
    chat.type(UP + UP)
    chat.expect("Who are you?")
    chat.type("\r")
    chat.expect("| short")
    _leave(chat)
    assert messages_of("short")[::2] == ["Who are you?"]


def test_only_a_new_line_is_marked_as_one_not_one_that_is_wrapped(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf)
    chat.expect("| loaded")
    chat.type("x" * 200 + "end")
    chat.expect("end")
    assert "... " not in _visible(chat)
    chat.type("\x1b\rnew line")
    chat.expect("... new line")
    chat.type("\x03")
    chat.expect("to quit")
    _leave(chat)


def test_a_plain_chat_keeps_a_long_message_in_its_history(demo_gguf: Path) -> None:
    chat = on_terminal(demo_gguf, "--plain")
    chat.expect("| loaded")
    chat.expect(">>>")
    chat.type('"""My name is Ada.\n')
    chat.expect("... ")
    for _ in range(5):  # a terminal takes no longer line
        chat.type("word " * 400 + "\n")
        chat.expect("... ")
    chat.type('end"""\n')
    chat.expect("error: the prompt has")
    chat.expect("the Up key")
    chat.expect(">>>")
    assert TOO_LONG in _visible(chat)
    chat.type(UP)
    chat.expect("My name is Ada.")
    chat.type("\n")
    chat.expect("error: the prompt has")
    chat.expect(">>>")
    _leave(chat)


def test_a_message_written_in_the_editor_is_not_lost(demo_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(LONG)
    script = tmp_path / "editor.sh"
    script.write_text('#!/bin/sh\ncat long.txt > "$1"\n')
    script.chmod(0o755)
    chat = on_terminal(demo_gguf, "--session", "edited", EDITOR=str(script))
    chat.expect("| loaded")
    chat.type("/edit\r")
    chat.expect("error: the prompt has")
    chat.expect("the Up key")
    chat.expect("| edited")
    chat.type(UP)
    chat.expect("line 89")
    assert "line 89" in _visible(chat)
    chat.type("\r")
    chat.expect("error: the prompt has")
    _leave(chat)


@pytest.mark.parametrize("length", [300, 3000])
def test_a_long_error_keeps_its_beginning_and_end_on_the_screen(
    demo_gguf: Path, length: int
) -> None:
    chat = on_terminal(demo_gguf, "--session", "errors")
    chat.expect("| loaded")
    chat.type(f"{PASTE}/{'x' * length}{END}\r")
    chat.expect("slash, put a")
    chat.expect("| errors")
    assert "error: unknown command '/xxx" in _visible(chat)
    chat.type(f"{PASTE}/read {'y/' * (length // 2)}{END}\r")
    chat.expect("error: y/y")
    chat.expect("| errors")
    assert "error: y/y" in _visible(chat)
    _leave(chat)


def test_words_meant_as_commands_get_a_hint_before_the_model_is_loaded(demo_gguf: Path) -> None:
    for way, enter in [([], "\r"), (["--plain"], "\n")]:
        chat = on_terminal(demo_gguf, "--session", f"words{len(way)}", *way)
        chat.expect(">>>")
        for word in ("exit", "Quit.", "help"):
            chat.type(word + enter)
            chat.expect(f"type /{'help' if word == 'help' else 'exit'}")
            chat.expect("put a space before")
            chat.expect(">>>")
        chat.type(f" exit{enter}")
        chat.expect("exit")
        chat.type(f"My name is Ada.{enter}")
        chat.expect("Nice to meet you, Ada.")
        chat.expect(">>>")
        _leave(chat)
        assert messages_of(f"words{len(way)}")[::2] == [" exit", "My name is Ada."]


def test_file_names_are_completed_as_they_must_be_typed(demo_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "my notes.txt").write_text("Some notes.")
    chat = on_terminal(demo_gguf)
    chat.expect("| loaded")
    for begun, rest in [("/read my", "\\ notes.txt"), ('/read "my', ' notes.txt"')]:
        chat.type(begun)
        chat.expect("my")
        chat.expect("my notes.txt")
        chat.type("\t" + rest[-1] * rest.endswith('"'))
        chat.expect("notes.txt")
        chat.type("\r")
        chat.expect("(my notes.txt: ")
        chat.expect(">>>")
    _leave(chat)
