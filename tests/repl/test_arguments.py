"""What the commands take after their name, and how they refuse the rest."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.errors import UsageError
from edgesppo.repl.commands import registry
from edgesppo.repl.commands.registry import COMMANDS
from edgesppo.repl.sampling_settings import assignments
from edgesppo.sessions.folder import Sessions

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _chat(model: Path, *lines: str, code: int = 0, options: tuple[str, ...] = ()) -> Result:
    words = ["chat", str(model), "--session", "here", "--temperature", "0", *options]
    result = CliRunner().invoke(main, words, input="".join(f"{line}\n" for line in lines))
    assert result.exit_code == code, result.output
    return result


def _asked(name: str = "here") -> list[str]:
    with Sessions().open(name) as session:
        assert session.transcript is not None
        return [turn.user for turn in session.transcript.turns]


def test_a_command_without_arguments_refuses_them_and_does_nothing(demo_gguf: Path) -> None:
    alone = [command.name for command in COMMANDS if not command.usage]
    assert {"/clear", "/exit", "/regen", "/continue", "/show", "/context"} <= {*alone}
    said = _chat(demo_gguf, "My name is Ada.", *(f"{name} now" for name in alone), code=1)
    for name in alone:
        assert f"error: {name} takes no argument, not 'now'; type {name} alone" in said.stderr
    assert _asked() == ["My name is Ada."]
    assert said.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/undo abc", "/undo takes a number of turns, 1 or more, not 'abc'"),
        ("/undo 0", "not '0'"),
        ("/undo -1", "not '-1'"),
        ("/undo 1 2", "not '1 2'"),
        ("/undo 3", "/undo 3: the chat has only 2 turns; /clear removes them all"),
        ("/undo " + "9" * 5000, "/undo takes a number of turns"),
        ("/help set read", "/help takes the name of one command"),
        ("/copy all", "/copy takes no argument or the word code"),
        ("/export a.md b.md", "/export takes one name, not 2"),
        ("/model a.gguf b.gguf", "/model takes one name, not 2"),
        ("/set temperature=", "temperature= has no value"),
        ("/set temperature=0.3 tempo=2", "unknown parameter 'tempo'"),
        ("/set tempo", "unknown parameter 'tempo'"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_is_right(
    demo_gguf: Path, line: str, complaint: str
) -> None:
    said = _chat(demo_gguf, "hi", "My name is Ada.", line, "/set temperature", code=1)
    assert f"error: {complaint}" in said.stderr or complaint in said.stderr
    assert len(_asked()) == 2
    assert "temperature  0 " in said.stderr, "a part of the line was carried out"


def test_undo_takes_a_number_of_turns_or_of_attached_files(demo_gguf: Path, folder: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / name).write_text(name)
    said = _chat(demo_gguf, "one", "two", "three", "/undo 2").stderr
    assert "(removed 2 turns, from: two)" in said
    assert _asked() == ["one"]
    said = _chat(demo_gguf, "/read *.txt", "/undo 2", "/undo 2", "/undo", "/undo", code=1).stderr
    assert "(a.txt, b.txt, c.txt: " in said
    assert "/undo removes the last one, /undo 3 all)" in said
    assert "(removed 2 files: b.txt, c.txt)" in said
    assert "error: /undo 2: " in said, "turns were removed in place of files"
    assert "(removed the file a.txt)" in said
    assert "(removed: one)" in said


def test_edit_sends_a_text_instead_of_the_last_message(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "hi", "/edit My name is Ada.", "/edit My name is Ada.")
    assert "Nice to meet you, Ada." in said.stdout
    assert "(nothing changed)" in said.stderr
    assert _asked() == ["My name is Ada."]
    said = _chat(demo_gguf, "/clear", "/edit My name is Bob.", "/edit", code=1)
    assert "error: /edit needs a terminal; /edit TEXT sends TEXT instead" in said.stderr
    assert _asked() == ["My name is Bob."]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("temperature", [("temperature", "")]),
        ("temperature 0.3", [("temperature", "0.3")]),
        ("temperature=0.3", [("temperature", "0.3")]),
        ("temperature = 0.3", [("temperature", "0.3")]),
        ("temperature=0.3 top_p=0.9", [("temperature", "0.3"), ("top_p", "0.9")]),
        ("temperature=0.3, top-p = 0.9", [("temperature", "0.3"), ("top-p", "0.9")]),
        ("stop=a b top_k=3", [("stop", "a b"), ("top_k", "3")]),
        ("stop x=y", [("stop", "x=y")]),
        ("stop=\"a b\" temperature='0.7'", [("stop", "a b"), ("temperature", "0.7")]),
        ('stop="', [("stop", '"')]),
        ("stop=x=y", [("stop", "x=y")]),
        ("logit_bias=5=-1 6=2", [("logit_bias", "5=-1 6=2")]),
        ("logit_bias 5:-1", [("logit_bias", "5:-1")]),
        ("temperature: 0.3", [("temperature", "0.3")]),
        ("temperature:=0.3", [("temperature", "0.3")]),
        ('"temperature=0.3"', [("temperature", "0.3")]),
        ("temperature=0.3,top_k=5", [("temperature", "0.3"), ("top_k", "5")]),
        ("Temperature=0.3 TOP-K: 5", [("Temperature", "0.3"), ("TOP-K", "5")]),
        ("stop=User: name", [("stop", "User: name")]),
        ("stop=a,b=c", [("stop", "a,b=c")]),
        ('stop "a top_k=3" top_p=0.9', [("stop", "a top_k=3"), ("top_p", "0.9")]),
        ("stop don't temperature=0", [("stop", "don't"), ("temperature", "0")]),
        ("stop='a: b', top_k=3", [("stop", "a: b"), ("top_k", "3")]),
    ],
)
def test_set_takes_a_name_and_a_value_in_each_form(text: str, pairs: list[tuple[str, str]]) -> None:
    assert assignments(text) == pairs


def test_a_parameter_is_known_however_its_name_is_written(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "/set Temperature=0.3, TOP-K: 5", "/temperature 0.5", code=1).stderr
    assert "temperature  0.3" in said
    assert "top_k        5" in said
    assert "unknown command '/temperature'" in said
    assert "/set temperature VALUE" in said


def test_a_command_is_told_by_the_name_that_was_typed(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "/quit now", "/retry it", code=1).stderr
    assert "/quit takes no argument, not 'now'; type /quit alone" in said
    assert "/retry takes no argument" in said


def test_set_changes_several_parameters_or_none(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "/set parameter temperature=0.3 top_p = 0.9", "/set system=Be brief.")
    assert "temperature  0.3" in said.stderr
    assert "system: Be brief." in said.stderr
    said = _chat(demo_gguf, "/set seed=7 top_p=5", "/set seed", code=1)
    assert "top_p" in said.stderr
    assert "seed  7" not in said.stderr
    with pytest.raises(UsageError, match="temperature= has no value"):
        assignments("temperature= top_p=0.9")
    with pytest.raises(UsageError, match="stop is given twice"):
        assignments("stop=x stop=y")


@pytest.mark.parametrize("word", ["exit", "Quit", "HELP", "exit.", "quit ", "exit()", ":q", "help"])
def test_a_word_meant_as_a_command_gets_a_hint(word: str) -> None:
    hint = registry.hint(word)
    assert hint is not None
    assert "put a space before it" in hint
    assert ("/help" if "help" in word.lower() else "/exit") in hint


@pytest.mark.parametrize("text", [" exit", "exit now", "help me", "help?", "the exit", "e", ""])
def test_other_messages_get_no_hint(text: str) -> None:
    assert registry.hint(text) is None


def test_in_a_pipe_such_a_word_is_a_message(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "quit", "help", " exit")
    assert "put a space before" not in said.stderr
    assert _asked() == ["quit", "help", " exit"]


def test_a_new_chat_says_what_it_keeps(demo_gguf: Path) -> None:
    brief = ("--system", "Be brief.\n" + "word " * 40)
    lines = ("/set seed 7", '/new "two words"', "/set seed", "/set temperature", "/clear")
    said = _chat(demo_gguf, *lines, options=brief).stderr
    assert "(started a new chat, two words;" in said
    assert "(it keeps the system text: Be brief. word " in said
    assert "...; /system none removes it)" in said
    assert re.search(r"^  seed +7 ", said, re.MULTILINE)
    assert re.search(r"^  temperature +0 ", said, re.MULTILINE), "as on the command line"
    assert "it keeps its system text: Be brief." in said
    assert "keeps the system text" not in _chat(demo_gguf, "/system none", "/new").stderr


def test_deleting_the_chat_says_what_the_next_one_keeps(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "hi", "/delete", options=("--system", "Be brief.")).stderr
    assert "(it keeps the system text: Be brief.; /system none removes it)" in said


@pytest.mark.skipif(sys.platform == "win32", reason="the name has a quote")
def test_exported_files_may_have_quoted_names(demo_gguf: Path, folder: Path) -> None:
    _chat(demo_gguf, "hi", '/export "my chat.md"', r"/export it\'s.md")
    assert (folder / "my chat.md").is_file()
    assert (folder / "it's.md").is_file()
