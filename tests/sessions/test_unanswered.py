"""A question is on disk from the moment it is sent: a crash in mid-answer loses nothing."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import edgesppo
from edgesppo.cli import main
from edgesppo.repl.loop import PipeLoop
from edgesppo.sessions.folder import Sessions
from tests.support.command_line import ENDLESS
from tests.support.pty_terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo import LoadedModel
    from edgesppo.sessions.transcript import Transcript

FRANCE = "What is the capital of France?"
LONG = "Tell me a story, please."


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "sessions")


def transcript(sessions: Sessions, name: str = "rome") -> Transcript | None:
    with sessions.open(name) as session:
        return session.transcript


def wait_for_question(folder: Path) -> None:
    """Wait until the chat has sent it: the model may still be loading when it is typed."""
    deadline = time.monotonic() + 60
    while not any(LONG.encode() in path.read_bytes() for path in folder.iterdir()):
        assert time.monotonic() < deadline, "the question was not written"
        time.sleep(0.02)


def test_a_question_that_was_sent_is_there_after_a_crash(
    demo: LoadedModel, sessions: Sessions
) -> None:
    session = sessions.open("rome")
    saved = demo.keep(session)
    saved.ask(FRANCE)
    session.close()  # the process ends here, with nothing else written
    found = transcript(sessions)
    assert found is not None
    assert (found.asked, found.turns) == (FRANCE, [])
    with demo.keep(sessions.open("rome")) as again:
        assert again.asked == FRANCE
    found = transcript(sessions)
    assert found is not None
    assert found.asked == FRANCE, "leaving without an answer does not lose it"


def test_an_answer_ends_the_question_also_one_that_was_cut(
    demo: LoadedModel, sessions: Sessions
) -> None:
    with demo.keep(sessions.open("rome"), temperature=0) as saved:
        saved.ask(FRANCE)
        for chunk in saved.chat.stream(FRANCE):
            if chunk.text:
                break
        saved.record()
        assert saved.asked is None
    found = transcript(sessions)
    assert found is not None
    assert found.asked is None
    assert [turn.finish_reason for turn in found.turns] == ["cancelled"]


def test_the_same_question_twice_is_kept_twice(demo: LoadedModel, sessions: Sessions) -> None:
    with demo.keep(sessions.open("rome"), temperature=0) as saved:
        saved.ask(FRANCE)
        saved.chat.ask(FRANCE)
        saved.record()
        saved.ask(FRANCE)
    found = transcript(sessions)
    assert found is not None
    assert (found.asked, len(found.turns)) == (FRANCE, 1)


def test_an_answer_equal_to_the_last_one_ends_its_question(
    demo: LoadedModel, sessions: Sessions
) -> None:
    with demo.keep(sessions.open("rome"), temperature=0) as saved:
        answers = set()
        for _ in range(3):
            saved.ask("Hello")
            answers.add(saved.chat.ask("Hello"))
            saved.record()
        assert len(answers) < 3, "two answers are the same"
    found = transcript(sessions)
    assert found is not None
    assert (found.asked, len(found.turns)) == (None, 3)


def test_a_question_that_is_withdrawn_leaves_no_trace(
    demo: LoadedModel, sessions: Sessions
) -> None:
    with demo.keep(sessions.open("rome")) as saved:
        saved.ask(FRANCE)
        saved.withdraw()
    assert list(sessions.folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_kill_in_mid_answer_keeps_the_question_and_resume_offers_it(
    babbler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    endless = [*ENDLESS]
    command = [sys.executable, "-m", "edgesppo", "chat", str(babbler), *endless]
    chat = Terminal([*command, "--session", "rome"])
    chat.expect(">>>")
    chat.type(f"{LONG}\r")
    chat.expect(LONG)
    chat.wait_for_more(300)
    wait_for_question(tmp_path / "home" / "sessions")
    os.kill(chat.process.pid, signal.SIGKILL)
    chat.close()
    again = Terminal([*command, "--resume"])
    again.expect(f"(not answered: {LONG}; /regen answers it)")
    again.expect(">>>")
    again.type("/regen\r")
    again.expect("/regen")
    again.wait_for_more(300)
    again.type("\x03")
    again.expect("(stopped; /continue resumes the answer)")
    again.expect(">>>")
    again.type("\x04")
    again.close()
    found = transcript(Sessions(tmp_path / "home" / "sessions"))
    assert found is not None
    assert found.asked is None
    assert [turn.user for turn in found.turns] == [LONG]


@pytest.mark.parametrize(
    ("command", "said", "turns"),
    [
        ("/undo", f"(removed, not answered: {LONG})", [FRANCE]),
        ("/undo 3\n/undo", "error: /undo 3: the chat has only 2 turns;", [FRANCE]),
        ("/clear", "(removed all turns of this chat", []),
        ("hi", f"(left without an answer: {LONG})", [FRANCE, "hi"]),
        ("/edit My name is Ada.", "", [FRANCE, "My name is Ada."]),
        ("/regen", "", [FRANCE, LONG]),
    ],
)
def test_commands_on_the_last_message_mean_the_unanswered_one(
    command: str,
    said: str,
    turns: list[str],
    demo_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    sessions = Sessions(tmp_path / "home" / "sessions")
    with edgesppo.load(demo_gguf) as model:
        saved = model.keep(sessions.open("rome"), temperature=0)
        saved.chat.ask(FRANCE)
        saved.ask(LONG)
        saved.session.close()
    words = ["chat", str(demo_gguf), "--session", "rome"]
    result = CliRunner().invoke(main, words, f"/continue\n{command}\n")
    refusal = "the last message has no answer yet: /regen answers it, /undo removes it"
    assert refusal in result.stderr
    assert said in result.stderr
    found = transcript(sessions)
    assert found is not None
    assert (found.asked, [turn.user for turn in found.turns]) == (None, turns)


def test_an_edited_message_is_on_disk_before_it_is_answered(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    asked: list[str | None] = []
    show = PipeLoop.show

    def seen(self: PipeLoop, chunks: Any, question: str) -> None:
        session = self.state.session
        assert session is not None
        assert session.transcript is not None
        asked.append(session.transcript.asked)
        show(self, chunks, question)

    monkeypatch.setattr(PipeLoop, "show", seen)
    words = ["chat", str(demo_gguf), "--session", "rome"]
    too_long = "word " * 2000
    lines = f"{FRANCE}\n/edit {LONG}\n/edit {too_long}\n"
    assert "shorten it" in CliRunner().invoke(main, words, lines).stderr
    assert asked == [FRANCE, LONG, too_long.strip()]
    found = transcript(Sessions())
    assert found is not None
    assert (found.asked, [turn.user for turn in found.turns]) == (None, [LONG])


def test_a_question_among_the_messages_is_saved_as_asked(
    demo: LoadedModel, sessions: Sessions
) -> None:
    with demo.keep(sessions.open("rome")) as saved:
        saved.chat.ask("Hello")
        saved.chat.messages.append({"role": "user", "content": FRANCE})
    found = transcript(sessions)
    assert found is not None
    assert (found.asked, [turn.user for turn in found.turns]) == (FRANCE, ["Hello"])


def test_messages_out_of_order_are_refused_by_number(demo: LoadedModel, sessions: Sessions) -> None:
    saved = demo.keep(sessions.open("rome"))
    saved.chat.messages.append({"role": "assistant", "content": "Hi"})
    with pytest.raises(edgesppo.UsageError, match="message 1 has the role 'assistant'"):
        saved.close()
    assert saved.session.closed
