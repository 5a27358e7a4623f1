"""Faults while switching chats or models (interrupts, full disks): no chat is lost."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import BadChat, OutOfMemory, OutputError, UsageError
from edgesppo.repl.loop import Loop
from edgesppo.repl.model_slot import ModelSource
from edgesppo.repl.state import ReplState, Setup
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.folder import Sessions
from edgesppo.system.fs import FileSystem
from edgesppo.system.signals import shielded
from edgesppo.terminal import ctrl_c as signals
from edgesppo.terminal.raw_mode import Keyboard
from edgesppo.terminal.screen import Screen
from edgesppo.terminal.stream import PlainText

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel


class Disk(FileSystem):
    """A disk that can be full."""

    full = False

    def write(self, descriptor: int, data: Any, offset: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(descriptor, data, offset)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def begin(
    demo: LoadedModel, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], ReplState]]:
    """Start a chat in a session, or in none (""); the demo stays loaded."""
    monkeypatch.setattr(type(demo), "close", lambda _: None)
    sessions = Sessions(tmp_path / "sessions", disk)
    made: list[ReplState] = []

    def begin(name: str) -> ReplState:
        source = ModelSource("demo", lambda _: demo)
        session = sessions.open(name) if name else None
        options = {"temperature": 0.0, "max_tokens": 12}
        setup = Setup(source, lambda _: source, sessions, session, options=options)
        made.append(ReplState(setup))
        made[-1].load_now(lambda *_: None)
        return made[-1]

    yield begin
    for state in made:
        state.close()


def _ask(state: ReplState, text: str) -> None:
    state.chat.ask(text)
    state.record()


def _asked(state: ReplState, name: str) -> list[str]:
    """The user messages of a chat, as saved on disk."""
    entries = [entry.name for entry in state.setup.sessions.entries()]
    assert name in entries
    with state.setup.sessions.open(name) as session:
        assert session.transcript is not None
        return [turn.user for turn in session.transcript.turns]


def _interrupted(work: Callable[..., Any]) -> Callable[..., Any]:
    """The function, interrupted by Ctrl-C when it is called."""

    def interrupted(*words: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return work(*words, **options)

    return interrupted


def test_an_interrupted_switch_leaves_the_chat_saved_as_before(
    begin: Callable[[str], ReplState], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = begin("kept")
    _ask(state, "My name is Ada.")
    with monkeypatch.context() as patch:
        patch.setattr(kv_snapshot, "write", _interrupted(kv_snapshot.write))
        other = state.setup.sessions.open("other")
        with pytest.raises(KeyboardInterrupt):
            state.switch(other)
    assert state.name == "kept"
    _ask(state, "What is my name?")
    state.switch(state.setup.sessions.open("other"))
    assert state.name == "other"
    assert _asked(state, "kept") == ["My name is Ada.", "What is my name?"]


def test_a_full_disk_keeps_the_turns_that_are_only_in_memory(
    begin: Callable[[str], ReplState], disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    state = begin("kept")
    _ask(state, "My name is Ada.")
    disk.full = True
    with pytest.raises(OutputError):
        _ask(state, "What is my name?")
    with pytest.raises(OutputError):
        state.switch(state.setup.sessions.open("other"))
    with pytest.raises(OutputError):
        state.use_model(state.model.source, lambda *_: None)
    assert (state.name, len(state.chat.messages)) == ("kept", 4)
    loop = Loop(state, Screen(redraws=False, styled=False))
    assert not loop.turn("What is my name?")
    written = capsys.readouterr()
    assert "Ada" in written.out, "answering needs no disk"
    assert "(not saved: no space left for " in written.err
    assert written.err.count("no space left") == 1
    disk.full = False
    state.switch(state.setup.sessions.open("other"))
    assert _asked(state, "kept") == ["My name is Ada.", *["What is my name?"] * 2]


@pytest.mark.parametrize("name", ["", "kept"])
def test_a_failed_switch_changes_nothing(
    begin: Callable[[str], ReplState], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise BadChat("no chat at all")

    state = begin(name)
    _ask(state, "My name is Ada.")
    bad = state.setup.sessions.open("bad")
    with monkeypatch.context() as patch:
        patch.setattr(type(state.loaded), "keep", fails)
        with pytest.raises(BadChat):
            state.switch(bad)
    assert (state.name, len(state.chat.messages)) == (name, 2)
    assert bad.closed
    _ask(state, "What is my name?")


def test_a_chat_that_is_no_longer_saved_says_so(begin: Callable[[str], ReplState]) -> None:
    state = begin("kept")
    saved, state._saved = state._saved, None
    with pytest.raises(OutputError, match="'kept' is no longer saved"):
        state.record()
    state._saved = saved


def test_the_old_model_returns_after_two_interrupts(begin: Callable[[str], ReplState]) -> None:
    state = begin("kept")
    _ask(state, "My name is Ada.")
    # Interrupts loading the new model, and then the old one.
    state.model.source.open = _interrupted(state.model.source.open)
    with pytest.raises(KeyboardInterrupt):
        state.use_model(state.model.source, lambda *_: None)
    _ask(state, "What is my name?")
    assert [message.content for message in state.chat.messages[::2]] == [
        "My name is Ada.",
        "What is my name?",
    ]


@pytest.mark.parametrize("name", ["", "kept"])
def test_a_chat_survives_when_no_model_can_be_loaded(
    begin: Callable[[str], ReplState], name: str
) -> None:
    state = begin(name)
    _ask(state, "My name is Ada.")

    def fails(*_: object) -> Any:
        raise OutOfMemory("no memory at all")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.model.source, "open", fails)
        for _ in range(2):
            with pytest.raises(OutOfMemory):
                state.use_model(state.model.source, lambda *_: None)
            with pytest.raises(UsageError, match="load one with /model NAME to continue the chat"):
                _ask(state, "What is my name?")
            with pytest.raises(UsageError, match="no model is loaded"):
                state.switch(state.setup.sessions.open("other"))
            state.setup.sessions.open("other").close()
    state.use_model(state.model.source, lambda *_: None)
    _ask(state, "What is my name?")
    assert len(state.chat.messages) == 4


class Interrupting(Screen):
    """A screen on which Ctrl-C arrives in the middle of every write."""

    def __init__(self) -> None:
        super().__init__(redraws=False, styled=False)
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text[:1]
        signal.raise_signal(signal.SIGINT)
        self.written += text[1:]

    def say(self, text: str) -> None:
        self.written += f"[{text}]"


def test_ctrl_c_waits_for_the_current_write(
    begin: Callable[[str], ReplState],
) -> None:
    screen = Interrupting()
    loop = Loop(begin("kept"), screen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainText, "finish", lambda _: None)
        assert loop.turn("What is the capital of France?")
    answer = loop.state.chat.messages[-1].content
    assert answer
    assert screen.written == f"{answer}[(stopped; /continue resumes the answer)]"


@pytest.mark.parametrize("raw", [False, True])
def test_held_keys_are_not_echoed(raw: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    termios = pytest.importorskip("termios")
    master, slave = os.openpty()

    def flags() -> tuple[bool, bool, bool]:
        found = termios.tcgetattr(slave)
        lines = bool(found[3] & termios.ICANON), bool(found[0] & termios.ICRNL)
        return (bool(found[3] & termios.ECHO), *lines)

    with open(slave, closefd=False) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        keyboard = Keyboard(raw=raw)
        assert flags() == (True, True, True)
        with keyboard.hold():
            assert flags() == (False, not raw, not raw)
            with keyboard.release():
                assert flags() == (True, True, True)
            assert flags() == (False, not raw, not raw)
        assert flags() == (True, True, True)
    os.close(slave)
    os.close(master)


def test_a_shielded_block_finishes_before_ctrl_c() -> None:
    done: list[str] = []

    def work() -> None:
        with shielded():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_only_the_second_ctrl_c_within_a_second_quits(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([101.0, 102.5, 103.3])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    ctrl_c = signals.CtrlC()
    left = []
    for _ in range(3):
        ctrl_c.pressed()
        left.append(ctrl_c.leaving)
    assert left == [False, False, True]
