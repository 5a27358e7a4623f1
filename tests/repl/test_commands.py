"""The slash commands, given through a pipe: effects, replies and errors."""

from __future__ import annotations

import errno
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.repl.commands.registry import COMMANDS
from edgesppo.repl.loop import PipeLoop
from edgesppo.repl.sampling_settings import names
from edgesppo.sessions.folder import Sessions
from tests.support.command_line import ENDLESS

if TYPE_CHECKING:
    from click.testing import Result

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the editor is a shell script")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _chat(model: Path, *lines: str, session: str | None = "here", code: int = 0) -> Result:
    options = ["--session", session] if session else []
    words = ["chat", str(model), "--temperature", "0", *options]
    result = CliRunner().invoke(main, words, input="".join(f"{line}\n" for line in lines))
    assert result.exit_code == code, result.output
    return result


def _turns(name: str) -> list[tuple[str, str]]:
    with Sessions().open(name) as session:
        assert session.transcript is not None
        return [(turn.user, turn.assistant) for turn in session.transcript.turns]


def test_every_command_is_listed_and_explains_itself(demo_gguf: Path) -> None:
    listed = _chat(demo_gguf, "/?").stderr
    for command in COMMANDS:
        assert f"{command.name} " in listed
        assert command.help in listed or command.name in {"/help", "/exit"}
    assert "/set [NAME VALUE]" in _chat(demo_gguf, "/help set").stderr
    unknown = _chat(demo_gguf, "/help foo", "/", code=1).stderr
    assert "error: unknown command 'foo'; /help lists the commands\n" in unknown
    assert "error: unknown command '/'; /help lists the commands; to send" in unknown


def test_help_fits_into_a_small_terminal_above_the_prompt_and_the_status_line(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = _chat(demo_gguf, "/help").stderr.splitlines()
    listed = lines[next(n for n, line in enumerate(lines) if "/regen" in line) :]
    assert len(listed) <= 24 - 2
    assert max(map(len, listed)) < 80
    named = "\n".join(listed)
    assert all(f"{command.name} " in named for command in COMMANDS)
    assert "Ctrl-C" in _chat(demo_gguf, "/help keys").stderr


def test_set_shows_every_parameter_and_refuses_nonsense(demo_gguf: Path) -> None:
    listed = _chat(demo_gguf, "/set").stderr
    for name in names():
        assert re.search(rf"^  {name} ", listed, re.MULTILINE)
    nonsense = ["/set temperature hot", "/set top_p 5", "/set seed -1", "/set tempo 1"]
    refused = _chat(demo_gguf, *nonsense, code=1).stderr
    assert "temperature is 'hot', expected 0 or a number from" in refused
    assert re.search(r"top_p.* is 5, expected a number from 0 to 1", refused)
    assert "seed is -1, expected" in refused
    assert "unknown parameter 'tempo'" in refused


def test_typos_get_a_suggestion_and_a_path_can_be_sent(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "/exprot", "/set temprature 1", "/set logprobs 3", code=1).stderr
    assert "did you mean /export?" in said
    assert "did you mean temperature?" in said
    assert "use edgesppo run --json" in said
    lines = (" /usr/bin is a folder", '"""/undo"""', '/system """Be\nbrief."""', "/show")
    _chat(demo_gguf, *lines)
    assert [asked for asked, _ in _turns("here")] == [" /usr/bin is a folder", "/undo"]
    with Sessions().open("here") as session:
        assert session.transcript is not None
        assert session.transcript.system == "Be\nbrief."


def test_settings_apply_and_are_saved(demo_gguf: Path) -> None:
    said = _chat(
        demo_gguf, "/set max-tokens 2", "/set parameter seed 7", "Who are you?", "/show", "/stats"
    )
    assert "(cut off at the limit; /continue resumes the answer)" in said.stderr
    assert "max_tokens 2" in said.stderr
    assert "seed 7" in said.stderr
    with Sessions().open("here") as session:
        assert session.transcript is not None
        assert session.transcript.sampling["max_tokens"] == 2
    back = _chat(demo_gguf, "/set max_tokens default", "/set max_tokens")
    assert "max_tokens  2048" in back.stderr


def test_continue_regen_and_undo_change_the_last_turn(demo_gguf: Path) -> None:
    lines = ["/set max_tokens 3", "What is the capital of France?", "/set max_tokens 99"]
    said = _chat(demo_gguf, *lines, "/continue", "/continue", "/regen", "hi", "/undo")
    assert "(nothing to add: the answer is complete)" in said.stderr
    assert "(removed: hi)" in said.stderr
    assert _turns("here") == [("What is the capital of France?", "The capital of France is Paris.")]


def _editor(folder: Path) -> str:
    script = folder / "edit.sh"
    script.write_text('#!/bin/sh\nsed -i.bak s/Ada/Bob/ "$1"\n')
    script.chmod(0o755)
    return str(script)


def test_no_editor_is_started_without_a_terminal(
    demo_gguf: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", _editor(folder))
    said = _chat(demo_gguf, "My name is Ada.", "/edit", code=1)
    assert "error: /edit needs a terminal" in said.stderr
    assert [asked for asked, _ in _turns("here")] == ["My name is Ada."]


def test_a_question_is_changed_in_the_editor(
    demo_gguf: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", _editor(folder))
    monkeypatch.setattr(PipeLoop, "interactive", True)
    said = _chat(demo_gguf, "My name is Ada.", "/edit", "/edit")
    assert "> My name is Bob." in said.stderr
    assert "(nothing changed)" in said.stderr
    assert [asked for asked, _ in _turns("here")] == ["My name is Bob."]
    monkeypatch.setenv("VISUAL", "false")
    assert "false failed (exit code 1)" in _chat(demo_gguf, "/edit", code=1).stderr
    monkeypatch.setenv("VISUAL", "sh -c 'kill -INT $$'")
    assert "sh was stopped; nothing was changed" in _chat(demo_gguf, "/edit", code=1).stderr


def test_a_disk_that_fails_in_a_turn_does_not_end_the_chat(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    monkeypatch.setattr(PipeLoop, "interactive", True)
    said = _chat(demo_gguf, "/edit", "My name is Ada.", code=1)
    assert "error: /tmp/x: No space left on device" in said.stderr
    assert "Ada" in said.stdout


def test_a_bug_in_a_turn_does_not_end_the_chat(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("of\nnothing")

    monkeypatch.setattr("edgesppo.terminal.clipboard.copy_with_program", fails)
    said = _chat(demo_gguf, "My name is Ada.", "/copy", "What is my name?", code=1)
    assert "error: unexpected ZeroDivisionError: of nothing (a bug in edgesppo" in said.stderr
    assert "Your name is Ada." in said.stdout


def test_an_invalid_byte_fails_its_own_line_only(demo_gguf: Path) -> None:
    lines = b"My name is Ada.\ncaf\xe9\n/system caf\xe9\nWhat is my name?\n"
    words = ["chat", str(demo_gguf), "--temperature", "0"]
    said = CliRunner().invoke(main, words, input=lines)
    assert said.exit_code == 1
    assert "error: line 2 of standard input is not UTF-8 text: byte" in said.stderr
    assert "error: line 3 of standard input is not UTF-8 text: byte" in said.stderr
    assert "Your name is Ada." in said.stdout


def test_an_attached_file_is_ordinary_text_of_the_message(demo_gguf: Path, folder: Path) -> None:
    (folder / "notes.txt").write_text("<end_of_turn>\n```\n<bos>")
    (folder / "long.txt").write_text("word " * 2000)
    said = _chat(demo_gguf, "/read notes.txt", "Sum it up.", "/read notes.txt", "/undo", "hi")
    assert re.search(r"\(notes.txt: \d+ tokens, attached to the next message", said.stderr)
    assert "(removed the file notes.txt)" in said.stderr
    asked = [question for question, _ in _turns("here")]
    lines = ("/read notes.txt", "", "/new other", "/read long.txt", "/clear", "/undo", "hi")
    kept = _chat(demo_gguf, *lines, session=None)
    assert kept.stdout.count("\n") == 1, "a blank line sends nothing"
    assert "(notes.txt is still attached; /undo removes it)" in kept.stderr
    assert "(long.txt and 1 more are still attached; /undo removes one)" in kept.stderr
    assert asked == ["notes.txt:\n````\n<end_of_turn>\n```\n<bos>\n````\n\nSum it up.", "hi"]
    assert "warning: this does not fit" in _chat(demo_gguf, "/read long.txt").stderr
    stuck = _chat(demo_gguf, "/read long.txt", "Sum it up.", "hi", code=1)
    assert "still attached" not in stuck.stderr, "a pipe has one message for it"
    assert stuck.stdout
    (folder / "most.txt").write_text("word " * 365)
    lines = ("/clear", "hi", "/read most.txt", "Sum it up.", "/sessions")
    said = _chat(demo_gguf, *lines).stderr
    assert "warning: to make room for it, the oldest turn will be left out" in said
    assert re.search(r"here \(current\) +2 turns", said)
    (folder / "huge.txt").write_text("word " * 20_000)
    least = _chat(demo_gguf, "/read huge.txt").stderr
    assert re.search(r"\(huge.txt: at least [\d,]+ tokens, attached to", least)
    assert re.search("does not fit: at least [\\d,]+ tokens, but the context holds 512", least)
    (folder / "bytes").write_bytes(b"\xff\xfe")
    refused = _chat(demo_gguf, "/read bytes", "/read none.txt", "/read .", code=1).stderr
    for complaint in ("bytes is not UTF-8 text", "none.txt: cannot be read", ". is a folder"):
        assert complaint in refused


def test_a_system_text_that_does_not_fit_is_named(demo_gguf: Path) -> None:
    lines = [f"/system {'word ' * 2000}", "/context", "hi", "/system none", "hi"]
    said = _chat(demo_gguf, *lines, code=1)
    size = r"[\d,]+ tokens"
    fault = f"warning: this does not fit: {size}, but the context holds 512; /system none"
    assert re.search(fault, said.stderr)
    assert "The system text exceeds the context" in said.stderr
    assert re.search(rf"\(the system text alone has {size}; /system none", said.stderr)
    assert said.stderr.count("the prompt has") == 1
    assert said.stdout
    short = _chat(demo_gguf, "/system Be brief.", "w " * 900, code=1)
    assert "system text alone" not in short.stderr


def test_a_larger_context_is_advised_only_where_the_model_has_one(demo_gguf: Path) -> None:
    Path("long.txt").write_text("word " * 600)
    for n_ctx, advised in (("256", True), ("512", False)):
        words = ["chat", str(demo_gguf), "--n-ctx", n_ctx]
        said = CliRunner().invoke(main, words, input="/read long.txt\n").output
        assert "this does not fit" in said
        assert ("(--n-ctx makes it larger)" in said) == advised


def test_the_name_of_this_very_chat_is_not_taken_for_another_process(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "My name is Ada.", "/new here", "/save here", "/show", code=1).stderr
    assert said.count("error: this chat is called 'here' already; choose another name") == 2
    assert "is open in process" not in said


def test_chats_are_renamed_copied_switched_and_deleted(demo_gguf: Path) -> None:
    said = _chat(
        demo_gguf,
        *("My name is Ada.", "/save copy", "/rename ada", "/new other", "hi", "/load ada"),
        *("What is my name?", "/sessions"),
        *("/load copy", "/delete"),
        session="first",
    )
    assert "Resumed 'ada': 1 turn" in said.stderr
    assert re.search(r"^  ada \(current\) +2 turns", said.stderr, re.MULTILINE)
    assert sorted(entry.name for entry in Sessions().entries()) == ["ada", "other"]
    unasked = _chat(demo_gguf, "hi", "/delete ada", code=1).stderr
    assert "another chat is deleted only on a terminal, where you are asked first" in unasked
    assert "Ada" in _turns("ada")[1][1]
    refused = _chat(
        demo_gguf, "hi", "/save other", "/load none", "/rename a/b", "/delete none", code=1
    ).stderr
    for complaint in (
        "a chat 'other' already exists",
        "no saved chat 'none'",
        "cannot be the name",
    ):
        assert complaint in refused


def test_the_current_chat_can_be_deleted(demo_gguf: Path) -> None:
    path = Sessions().path("here")
    path.parent.mkdir(parents=True)
    path.write_text("no chat")
    said = _chat(demo_gguf, "My name is Ada.", "/delete", "What is my name?")
    assert "(deleted; started a new chat" in said.stderr
    assert f"(a damaged copy of it was kept, and still is: {path}.damaged-1)" in said.stderr
    (entry,) = Sessions().entries()
    assert entry.name != "here"
    assert "Ada" not in _turns(entry.name)[0][1]


@pytest.mark.parametrize("before", ["/undo", "/clear"])
def test_delete_also_removes_undone_turns(demo_gguf: Path, before: str) -> None:
    _chat(demo_gguf, "My secret is 42.", before, "/delete")
    assert Sessions().entries() == []


def test_a_chat_in_use_elsewhere_is_not_loaded_and_this_one_goes_on(demo_gguf: Path) -> None:
    with Sessions().open("busy") as held:
        _chat(demo_gguf, "hi", session="source")
        held.record  # noqa: B018  (held open until the end)
        said = _chat(demo_gguf, "My name is Ada.", "/new busy", "What is my name?", code=1)
    assert "'busy' is open in process" in said.stderr
    assert "Ada" in _turns("here")[1][1]


def test_a_chat_continues_with_another_model(demo_gguf: Path, demo_f32: Path) -> None:
    said = _chat(
        demo_gguf,
        "My name is Ada.",
        "/model none.gguf",
        f"/model {demo_f32}",
        "/model",
        "What is my name?",
        code=1,
    )
    assert "none.gguf' is not a file" in said.stderr
    assert f"the last answer was by another model, {demo_gguf.stem}" in said.stderr
    assert f"{demo_f32.stem} | " in said.stderr
    assert "Ada" in _turns("here")[1][1]
    alone = _chat(
        demo_gguf, "My name is Ada.", f"/model {demo_f32}", "What is my name?", session=None
    )
    assert "Your name is Ada." in alone.stdout


def test_a_chat_is_exported_as_markdown_and_json(demo_gguf: Path, folder: Path) -> None:
    _chat(demo_gguf, "/system Be brief.", "My name is Ada.", "/export", "/export chat.json")
    text = (folder / "here.md").read_text()
    assert "## System\n\nBe brief.\n\n## You\n\nMy name is Ada.\n\n## Answer\n\nNice" in text
    found = json.loads((folder / "chat.json").read_text())
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant"]
    assert found["sampling"]["temperature"] == 0
    said = _chat(
        demo_gguf,
        *("/export x.pdf", "/export chat.json", "/export ~nosuchuser/x.md", "/export a\0b.md"),
        *("/undo", "My name is Bob.", "/export folder.md"),
        code=1,
    ).stderr
    for complaint in (
        "must end in .md or .json",
        "chat.json already exists",
        "no home folder of that name",
        "a file name cannot contain a NUL character",
    ):
        assert complaint in said
    assert json.loads((folder / "chat.json").read_text()) == found, "the file was changed"
    assert "Bob" in (folder / "folder.md").read_text(), "the chat ended"
    assert not [*folder.glob(".*.md.*")]


def test_tokens_and_context_are_shown(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "/tokens Hi there", "My name is Ada.", "/context", "/tokens").stderr
    assert re.search(r"\d tokens: 'Hi'", said)
    assert "b'\\xf0'" in _chat(demo_gguf, "/tokens \U0001f44d", session=None).stderr
    assert re.search(r"^ +512  tokens in the context", said, re.MULTILINE)
    used = re.search(r"(\d+)  used \(\d+%\): 1 turn,", said)
    counts = re.search(r"\[(\d+) tokens in, (\d+) out", said)
    assert used is not None
    assert counts is not None
    n_more = int(used[1]) - sum(map(int, counts.groups()))
    assert 0 < n_more <= 2, "the turn's end, and no part of the next message"
    long = "word " * 250
    lines = ("/clear", "word " * 300, f"/system {long}", "/context", "/system none", long)
    full = _chat(demo_gguf, *lines, "/context", "/undo", "/context", "/undo", "/context").stderr
    assert re.search(r"[5-9]\d\d  used \(100%\): 1 turn,", full)
    assert "(left out of the prompt to make room: the oldest turn)" in full
    assert "The latest prompt left out the oldest turn." in full
    assert re.search(r" 3\d\d  used \(\d+%\): 1 turn, 0 tokens of system text", full)
    assert re.search(r" 0  used \(0%\): 0 turns,", full)
    assert "the next message leaves out the oldest turns" in full
    assert "tokens in this chat" in said


def test_an_unsaved_chat_can_be_saved(demo_gguf: Path) -> None:
    said = _chat(demo_gguf, "My name is Ada.", "/save ada", "What is my name?", session=None)
    assert "(saved as ada; every further turn will be saved, too)" in said.stderr
    assert "Ada" in _turns("ada")[1][1]


def test_an_answer_that_fills_the_context_is_not_said_to_go_on(babbler: Path) -> None:
    words = ["chat", str(babbler), "--n-ctx", "64", *ENDLESS]
    said = CliRunner().invoke(main, words, input="Hello\n").stderr
    assert "fills the context of 64 tokens (--n-ctx makes it larger); a shorter message" in said
    assert "/continue" not in said


def test_a_chat_without_turns_is_not_listed_and_one_that_is_not_saved_is_told(
    demo_gguf: Path,
) -> None:
    lines = ("hi", "/clear", "/new other", "hi", "/sessions")
    said = _chat(demo_gguf, *lines).stderr
    assert "other (current)  1 turn" in said
    assert not re.search(r"^  here ", said, re.MULTILINE)
    said = _chat(demo_gguf, "hi", "/new", session=None).stderr
    assert "(the chat before was not saved; /save NAME saves one, before /new)" in said


def test_copy_without_a_clipboard_suggests_export(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_TTY", "/dev/pts/0")
    said = _chat(demo_gguf, "/copy", "hi", "/copy", "/copy code", "/copy all", code=1).stderr
    for complaint in ("no answer to copy", "/export FILE", "no code block", "takes no argument"):
        assert complaint in said
