"""A saved chat comes back as it was; it is one process's at a time, and its owner's only."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgesppo.chat.messages import Message
from edgesppo.errors import BadChat, ChatInUse, Closed, UsageError
from edgesppo.sessions.session import Session
from edgesppo.system import jsonl
from tests.support.command_line import started
from tests.support.faulty import Counting, Short
from tests.support.paths import names
from tests.support.saved_states import BY, OTHER, STATES, found, said, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("n", range(1, len(STATES) + 1))
def test_a_chat_comes_back_as_it_was(path: Path, n: int) -> None:
    write(path, STATES[:n])
    assert found(path) == STATES[n - 1]
    assert names(path) == {"rome.jsonl"}


def test_random_changes_come_back(path: Path) -> None:
    rng = random.Random(5)
    answers: list[str] = []
    for _ in range(60):
        del answers[rng.randrange(len(answers) + 1) :]
        answers += [str(rng.random()) for _ in range(rng.randrange(3))]
        state = said(*answers, system=rng.choice([None, "s"]), by=rng.choice([BY, BY, OTHER]))
        write(path, [state])
        back = found(path, state.by)
        assert (back.turns if back else []) == state.turns


def test_short_reads_and_writes_lose_nothing(path: Path) -> None:
    long = said("word " * 3000, "b")
    with Session(path, Short()) as session:
        session.record(long)
    with Session(path, Short()) as session:
        assert session.transcript is not None
        assert session.transcript.turns == long.turns


def test_nothing_that_was_written_is_ever_changed(path: Path) -> None:
    before = b""
    with Session(path, Counting()) as session:
        for state in STATES:
            session.record(state)
            assert path.read_bytes().startswith(before)
            assert len(path.read_bytes()) > len(before)
            before = path.read_bytes()
            session.record(state)
            assert path.read_bytes() == before


def test_every_turn_is_synced_before_the_call_returns(path: Path) -> None:
    files = Counting()
    with Session(path, files) as session:
        for state in STATES:
            files.done.clear()
            session.record(state)
            assert "sync" in files.done[files.done.index("write") :]
            assert ("sync_folder" in files.done) == (state is STATES[0])


def test_an_empty_chat_leaves_no_file(path: Path) -> None:
    with Session(path, Counting()) as session:
        session.record(said())
        session.record(said(system="x"))
    assert names(path) == set()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_its_files_are_their_owners_only(path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    with Session(path) as session:
        session.record(STATES[0])
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert len(names(path)) == 3  # the lock and what is damaged, too
    assert modes == {0o600}


def test_how_an_answer_ended_is_kept_and_older_files_do_not_tell(path: Path) -> None:
    older = write(path, STATES[:1])
    assert b"finish_reason" not in older
    asked, answer = STATES[0].messages
    stopped = replace(STATES[0], messages=(asked, replace(answer, finish_reason="cancelled")))
    write(path, [stopped])
    assert path.read_bytes().startswith(older)
    assert found(path) == stopped


def test_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    newer = jsonl.encode([{"edgesppo": "chat", "version": 2, "new": []}, {"turn": None}])[0]
    path.write_bytes(newer)
    with pytest.raises(BadChat, match="version 2, this one reads 1"):
        Session(path)
    assert path.read_bytes() == newer
    assert names(path) == {"rome.jsonl"}


def test_a_file_that_is_removed_meanwhile_is_written_anew_whole(path: Path) -> None:
    with Session(path, Counting()) as session:
        session.record(STATES[1])
        path.unlink()
        session.record(STATES[3])
    assert found(path) == STATES[3]


def test_another_model_goes_on_without_the_tokens_of_the_first(path: Path) -> None:
    write(path, [said("a", "b")])
    back = found(path, OTHER)
    assert back is not None
    assert all(message.ids is None for message in back.messages)
    asked = (Message("user", "q"), Message("assistant", "c", (7,)))
    write(path, [replace(back, messages=back.messages + asked)])
    for by, known in ((BY, [True, True, False]), (OTHER, [False, False, True])):
        held = found(path, by)
        assert held is not None
        assert [turn.ids is not None for turn in held.turns] == known
        assert [turn.assistant for turn in held.turns] == ["a", "b", "c"]


def test_what_a_prompt_left_out_is_known_to_the_same_model_and_context_only(path: Path) -> None:
    write(path, [said("a", "b", "c", left_out=2)])
    others = [replace(BY, n_ctx=1024), OTHER, replace(BY, path="/elsewhere.gguf")]
    for by, expected in zip([BY, *others], [2, 0, 0, 2], strict=True):
        back = found(path, by)
        assert back is not None
        assert back.left_out == expected
    write(path, [said("a", left_out=2)])  # two were taken back
    back = found(path)
    assert back is not None
    assert back.left_out == 1


def test_rename_moves_the_chat_and_its_state(path: Path) -> None:
    with Session(path, Counting()) as session:
        session.record(STATES[0])
        session.state_path.write_bytes(b"state")
        session.rename(path.with_name("paris.jsonl"))
        assert session.name == "paris"
        session.record(STATES[1])
        with pytest.raises(ChatInUse):
            Session(path.with_name("paris.jsonl"))
        Session(path).close()
    assert names(path) == {"paris.jsonl", "paris.jsonl.kv"}
    assert found(path.with_name("paris.jsonl")) == STATES[1]


def test_rename_never_replaces_a_chat(path: Path) -> None:
    write(path)
    other = path.with_name("paris.jsonl")
    write(other, STATES[:1])
    with Session(path, Counting()) as session, pytest.raises(UsageError, match="'paris' already"):
        session.rename(other)
    with Session(path, Counting()) as session, Session(other), pytest.raises(ChatInUse):
        session.rename(other)
    assert (found(path), found(other)) == (STATES[-1], STATES[0])


def test_delete_leaves_nothing_but_what_was_damaged(path: Path) -> None:
    path.write_bytes(b"precious\n")
    with Session(path, Counting()) as session:
        session.record(STATES[0])
        session.state_path.write_bytes(b"state")
        session.delete()
    assert names(path) == {"rome.jsonl.damaged-1"}


def test_a_closed_session_is_not_written_to(path: Path) -> None:
    session = Session(path, Counting())
    session.close()
    session.close()
    with pytest.raises(Closed, match="'rome' was closed"):
        session.record(STATES[0])
    assert names(path) == set()


def test_the_second_process_is_told_who_has_the_chat_open(path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom edgesppo.sessions.session import Session\n"
        "session = Session(pathlib.Path(sys.argv[1]))\nprint('open', flush=True)\ninput()"
    )
    write(path, STATES[:1])
    words = [sys.executable, "-c", code, str(path)]
    with started(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(ChatInUse, match=f"'rome' is open in process {child.pid} on "):
            Session(path)
        child.kill()
    assert found(path) == STATES[0]  # a lock is never stale


def test_a_lock_whose_file_went_before_it_was_ours_locks_nothing(path: Path) -> None:
    """As if the process that held it ended after we opened the file and before we locked it."""
    lock = path.with_name(".rome.jsonl.lock")

    class Late(Counting):
        def lock(self, descriptor: int) -> None:
            if "lock" not in self.done:
                lock.unlink()
            super().lock(descriptor)

    with Session(path, Late()), pytest.raises(ChatInUse):
        Session(path)
    assert names(path) == set()
