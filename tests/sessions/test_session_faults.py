"""Whatever ends the process, and when, every turn that was reported to be on disk comes back."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import OutputError
from edgesppo.sessions.session import Session
from tests.support.command_line import started
from tests.support.faulty import Counting, Faulty
from tests.support.paths import ROOT, names
from tests.support.saved_states import STATES, found, said, write

if TYPE_CHECKING:
    from pathlib import Path


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
from tests.support.saved_states import STATES

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
from tests.support.saved_states import said

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
