"""A saved chat is never lost: whatever ends its process, and when, every turn that was reported to
be on disk comes back, and nothing damaged is thrown away."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgesppo.chat.messages import Message
from edgesppo.errors import BadChat, ChatInUse, Closed, OutputError, UsageError
from edgesppo.sessions.folder import Sessions
from edgesppo.sessions.session import Session
from edgesppo.sessions.transcript import Conversation, ModelMark
from edgesppo.system import jsonl
from tests.support.command_line import started
from tests.support.faulty import Counting, Faulty, Short
from tests.support.paths import ROOT
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BY = ModelMark("demo", "/models/demo.gguf", "f" * 64, 512)
OTHER = ModelMark("other", "/models/other.gguf", "0" * 64, 512)


def said(
    *answers: str, by: ModelMark = BY, system: str | None = None, left_out: int = 0
) -> Conversation:
    """A chat with these answers, each to a question full of characters that need escaping."""
    messages: list[Message] = []
    for n, answer in enumerate(answers):
        asked = Message("user", f"{n}: \n\u2028\x00 Grüße \U0001f600 \ud800")
        messages += [asked, Message("assistant", answer, (n, 255_999))]
    return Conversation(by, system, {"temperature": 0.7, "stop": []}, tuple(messages), left_out)


# A chat as it goes: turns, a new answer, two taken back, all forgotten, other settings.
STATES = [
    said("a"),
    said("a", "b"),
    said("a", "B"),
    said("a", "B", "c", "d"),
    said("a", "B"),
    said("a", "B", system="Be brief."),
    said(system="Be brief."),
    said("x", system="Be brief."),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "sessions").mkdir()
    return tmp_path / "sessions" / "rome.jsonl"


def names(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


def write(path: Path, states: Iterable[Conversation] = STATES) -> bytes:
    with Session(path, Counting()) as session:
        for state in states:
            session.record(state)
    return path.read_bytes()


def found(path: Path, by: ModelMark = BY) -> Conversation | None:
    """The chat as it is when opened again."""
    with Session(path, Counting()) as session:
        held = session.transcript
        if held is None:
            return None
        messages = tuple(held.messages(by.fingerprint))
        return Conversation(by, held.system, held.sampling, messages, held.left_out(by))


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


def test_a_torn_last_line_is_mended_and_said(path: Path) -> None:
    whole = write(path)
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        complete = end in (start, len(whole) - 1)  # only a newline lacks
        with Session(path, Counting()) as session:
            assert (session.notices == []) == complete
            assert all("torn last line" in notice for notice in session.notices)
        assert found(path) == STATES[-1 if end == len(whole) - 1 else -2]
        write(path)
        assert found(path) == STATES[-1]
        assert names(path) == {"rome.jsonl"}


def test_whichever_bit_flips_nothing_is_thrown_away(path: Path) -> None:
    """The undamaged part continues; if anything is damaged, a copy of the file is kept."""
    whole = write(path)
    ends = [end for end in range(1, len(whole) + 1) if whole[end - 1 : end] == b"\n"]
    known = [path.write_bytes(whole[:end]) and found(path) for end in ends]
    for at in [*range(0, len(whole), 5 if LONG else 17), len(whole) - 2, len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        with Session(path, Counting()) as session:
            notices = session.notices
        back = found(path)
        lost = sum(at < end for end in ends)
        assert back == [None, *known][-1 - (lost if at < len(whole) - 1 else 0)]
        if at == len(whole) - 1:
            assert back == STATES[-1]
            assert path.read_bytes() == whole
        else:
            kept = path.with_name("rome.jsonl.damaged-1")
            assert kept.read_bytes() == flipped
            assert len(notices) == 1
            assert str(kept) in notices[0]
            kept.unlink()
        write(path)
        assert found(path) == STATES[-1]
        path.unlink()


def test_whichever_bit_flips_in_a_last_line_without_newline_the_file_is_kept(path: Path) -> None:
    whole = write(path)[:-1]
    kept = path.with_name("rome.jsonl.damaged-1")
    for at in range(whole.rindex(b"\n") + 1, len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        with Session(path, Counting()) as session:
            assert "damaged after turn 0" in session.notices[0]
        assert kept.read_bytes() == flipped
        kept.unlink()


@pytest.mark.parametrize(
    "tail", [b"rubbish", b"\0\0\0", b"0123456 {", b"01234567 {]", b'01234567 "']
)
def test_what_was_appended_and_is_no_line_of_ours_is_kept(path: Path, tail: bytes) -> None:
    whole = write(path)
    path.write_bytes(whole + tail)
    with Session(path, Counting()) as session:
        assert "is damaged after turn 1" in session.notices[0]
    assert path.with_name("rome.jsonl.damaged-1").read_bytes() == whole + tail
    assert path.read_bytes() == whole


@pytest.mark.parametrize("text", [b"[1]", b"null", b"5", b"no JSON", b"[" * 100_000, b'{"a": 1e}'])
def test_a_line_that_is_no_object_is_damage_wherever_it_stands(path: Path, text: bytes) -> None:
    whole = write(path, STATES[:2])
    crc = [*jsonl.read_valid(whole)][-1].crc
    for before, after, back in ((b"", 0, None), (whole, crc, STATES[1])):
        spoilt = before + b"%08x %s\n" % (zlib.crc32(text, after), text)
        path.write_bytes(spoilt)
        assert len(Sessions(path.parent).entries()) == 1
        with Session(path, Counting()) as session:
            assert "damaged" in session.notices[0]
        assert found(path) == back
        kept = path.with_name("rome.jsonl.damaged-1")
        assert kept.read_bytes() == spoilt
        kept.unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_in_the_place_of_a_chat_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(BadChat, match="not a regular file"):
        Session(path)
    assert names(path) == {"rome.jsonl"}


def test_how_an_answer_ended_is_kept_and_older_files_do_not_tell(path: Path) -> None:
    older = write(path, STATES[:1])
    assert b"finish_reason" not in older
    asked, answer = STATES[0].messages
    stopped = replace(STATES[0], messages=(asked, replace(answer, finish_reason="cancelled")))
    write(path, [stopped])
    assert path.read_bytes().startswith(older)
    assert found(path) == stopped


def test_damaged_files_never_replace_each_other(path: Path) -> None:
    for n in range(3):
        path.write_bytes(b"no chat %d\n" % n)
        write(path, STATES[:1])
    kept = [path.with_name(f"rome.jsonl.damaged-{n}").read_bytes() for n in (1, 2, 3)]
    assert kept == [b"no chat 0\n", b"no chat 1\n", b"no chat 2\n"]
    assert found(path) == STATES[0]


def test_lines_that_are_dropped_doubled_or_moved_are_damage(path: Path) -> None:
    each = write(path).splitlines(keepends=True)
    dropped, doubled = each[:2] + each[3:], each[:3] + each[2:]
    for spoilt in (dropped, doubled, [*each[:2], each[3], each[2]]):
        path.write_bytes(b"".join(spoilt))
        with Session(path, Counting()) as session:
            assert "damaged after turn" in session.notices[0]


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


def record_all(path: Path, files: Counting) -> tuple[int, int]:
    """Record every state in spite of faults.

    Returns the last state that was reported to be on disk, and the last that was tried.
    """
    done = tried = -1
    try:
        with Session(path, files) as session:
            for n, state in enumerate(STATES):
                tried = n
                try:
                    session.record(state)
                    done = n
                except (OutputError, KeyboardInterrupt):
                    continue
    except (OutputError, KeyboardInterrupt):
        pass
    return done, tried


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, KeyboardInterrupt()])
def test_after_a_fault_at_any_operation_every_recorded_turn_is_there(
    path: Path, error: int | BaseException
) -> None:
    counting = Counting()
    record_all(path, counting)
    for number in range(1, len(counting.done) + 1):
        for file in path.parent.iterdir():
            file.unlink()
        done, tried = record_all(path, Faulty(number, error))
        back = found(path)
        assert back in [None, *STATES][done + 1 : tried + 2], f"operation {number}"
        assert names(path) <= {"rome.jsonl"}, f"operation {number}"


@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: b"x" + data])
def test_a_fault_while_mending_loses_nothing(path: Path, spoil: object) -> None:
    assert callable(spoil)
    damaged = spoil(write(path))
    path.write_bytes(damaged)
    counting = Counting()
    Session(path, counting).close()
    expected = found(path)
    for number in range(1, len(counting.done) + 1):
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(damaged)
        with suppress(OutputError):
            Session(path, Faulty(number)).close()
        assert found(path) == expected
        assert expected is not None or damaged in {f.read_bytes() for f in path.parent.iterdir()}


KILLED = """
import os, pathlib, signal, sys
from edgesppo.sessions.session import Session
from tests.support.faulty import Counting
from tests.sessions.test_session import STATES

for number in range(1, int(sys.argv[2]) + 1):
    folder = pathlib.Path(sys.argv[1], str(number))
    folder.mkdir(parents=True)
    if os.fork() == 0:
        def kill(at, name):
            if at == number:
                os.kill(os.getpid(), signal.SIGKILL)
        told = os.open(folder / "told", os.O_CREAT | os.O_WRONLY)
        with Session(folder / "rome.jsonl", Counting(kill)) as session:
            for state in STATES:
                session.record(state)
                os.write(told, b".")
        os._exit(7)
    if os.wait()[1] != signal.SIGKILL:
        sys.exit(f"operation {number} was not reached")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each victim is a fork of one process")
def test_killed_at_any_operation_every_recorded_turn_is_there(path: Path, tmp_path: Path) -> None:
    counting = Counting()
    record_all(path, counting)
    words = [sys.executable, "-c", KILLED, str(tmp_path / "victims"), str(len(counting.done))]
    subprocess.run(words, check=True, cwd=ROOT)
    for number in range(1, len(counting.done) + 1):
        folder = tmp_path / "victims" / str(number)
        done = (folder / "told").stat().st_size - 1
        back = found(folder / "rome.jsonl")
        assert back in [None, *STATES][done + 1 : done + 3], f"operation {number}"


VICTIM = """
import sys, pathlib
from edgesppo.sessions.session import Session
from tests.sessions.test_session import said

with Session(pathlib.Path(sys.argv[1])) as session:
    assert session.notices == [] or "torn" in session.notices[0], session.notices
    n = len(session.transcript.turns) if session.transcript else 0
    while True:
        n += 1
        session.record(said(*map(str, range(n))))
        print(n, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_killed_at_random_moments_a_chat_only_grows(path: Path) -> None:
    rng = random.Random(11)
    turns = 0
    for _ in range(8):
        words = [sys.executable, "-c", VICTIM, str(path)]
        with started(words, stdout=subprocess.PIPE, cwd=ROOT) as child:
            assert child.stdout is not None
            for _ in range(rng.randrange(1, 5)):
                child.stdout.readline()
            time.sleep(rng.random() * 0.05)
            child.kill()
            told = child.stdout.read().split(b"\n")
        back = found(path)
        assert back is not None
        assert len(back.turns) >= max([turns, *(int(n) for n in told[:-1])])
        turns = len(back.turns)
        assert back == said(*map(str, range(turns)))
    assert turns > 8


def test_ctrl_c_while_the_disk_is_waited_for_loses_no_first_turn(path: Path) -> None:
    class Interrupting(Counting):
        def sync(self, _descriptor: int) -> None:
            raise KeyboardInterrupt

    session = Session(path, Interrupting())
    with pytest.raises(KeyboardInterrupt):
        session.record(STATES[0])
    session.close()
    assert found(path) == STATES[0]
