"""Nothing is lost: whatever ends a conversion, and whenever, the next run gives the same file."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import OutOfMemory, OutputError, SourceUnreadable
from edgesppo_convert import convert
from edgesppo_convert.output.part_file import PartFile
from edgesppo_convert.source.safetensors import SAMPLES, Shard
from tests.convert.resume.stopped import stop_after
from tests.support.faulty import Counting, Faulty, PowerCut, Volatile, convert_on
from tests.support.paths import ROOT, names
from tests.support.sweeps import LONG, STRIDE, places

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

# How many tensors a sweep finds again, at least: all numbers only where it tries all operations.
RESUMED = {*range(14)} if LONG else {0, 13}


def operations(source: Path, out: Path) -> list[str]:
    counting = Counting()
    convert_on(counting, source, out)
    out.unlink()
    return counting.done


def finish(source: Path, out: Path, threads: int = 1) -> int:
    """Run the same command again, as a person would; the number of tensors that it resumed."""
    if not out.exists():
        return convert_on(Counting(), source, out, n_threads=threads).resumed
    with pytest.raises(OutputError, match="exists already; use --force"):
        convert(source, out)
    return 13


@pytest.mark.parametrize("error", [errno.EIO, KeyboardInterrupt()])
def test_after_a_fault_at_any_operation_the_next_run_gives_the_same_file(
    source: Path, out: Path, whole: bytes, error: int | BaseException
) -> None:
    done = operations(source, out)
    for number in places(done):
        # Cleaning up after the rename may fail silently.
        with suppress(OutputError, KeyboardInterrupt):
            convert_on(Faulty(number, error), source, out)
            assert number > done.index("link") + 2
        finish(source, out, threads=1 + number % 3)
        assert out.read_bytes() == whole
        assert names(out) == {out.name}
        out.unlink()


def test_a_full_disk_keeps_what_was_recorded_and_says_so(
    source: Path, out: Path, whole: bytes
) -> None:
    done = operations(source, out)
    first = done.index("sync") + 3  # the record itself, written to the journal, and what follows
    for number in places(done, done.index("link") + 1):
        with pytest.raises(OutputError) as caught:
            convert_on(Faulty(number, errno.ENOSPC), source, out)
        told = re.search(
            r"; (\d+) of 13 tensors are kept in .*: run the same command", str(caught.value)
        )
        assert bool(told) == (number >= first)
        if told is None:
            assert names(out) == set()
            continue
        assert convert(source, out).resumed == int(told[1]) > 0
        assert out.read_bytes() == whole
        out.unlink()


def test_a_disk_that_is_too_full_to_resume_keeps_what_was_recorded(
    source: Path, out: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(source, out, 50_000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 7))  # type: ignore[attr-defined]
        with pytest.raises(OutputError, match=r"has 7 free; .*; \d+ of 13 tensors are kept in"):
            convert(source, out)
    assert convert(source, out).resumed > 0
    assert out.read_bytes() == whole


def test_a_source_that_fails_for_a_moment_costs_nothing_that_was_done(
    source: Path, out: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reads = Shard._fill, []

    def fill(shard: Shard, buffer: memoryview, file: FileIO) -> None:
        reads.append(shard.name)
        if len(reads) == 14 + 2 * SAMPLES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(shard, buffer, file)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "_fill", fill)
        with pytest.raises(
            SourceUnreadable, match=r"cannot read .*; \d+ of 13 tensors are kept in"
        ):
            convert(source, out, n_threads=1)
    assert convert(source, out).resumed > 0
    assert out.read_bytes() == whole


def test_a_power_cut_at_any_operation_costs_only_what_was_not_recorded(
    source: Path, out: Path, whole: bytes
) -> None:
    """Data that was not synced is lost; file names and the journal's later lines are not."""
    done = operations(source, out)
    resumed = []
    for number in places(done):
        files = Volatile(number)
        with suppress(PowerCut):
            convert_on(files, source, out, n_threads=1)
        resumed.append(finish(source, out))
        assert resumed[-1] == files.claimed, f"operation {number}, {done[number - 1]}"
        assert out.read_bytes() == whole
        out.unlink()
    assert RESUMED <= {*resumed} <= {*range(14)}


def test_two_faults_in_a_row(source: Path, out: Path, whole: bytes) -> None:
    for number in range(1, 70, 4 if LONG else 16):
        stop_after(source, out, 45_000)
        with suppress(OutputError):
            convert_on(Faulty(number), source, out)
        finish(source, out)
        assert out.read_bytes() == whole
        out.unlink()


KILLED = """
import os, signal, sys
from edgesppo_convert import pipeline
from edgesppo_convert.output import output
from tests.support.faulty import Counting, convert_on

source, out, claim = sys.argv[1:4]
output.RECORD_EVERY = int(claim)
pipeline.convert(source, out, n_threads=1)  # loads what every victim needs
os.unlink(out)
for number in map(int, sys.argv[4:]):
    if os.fork() == 0:
        def kill(at, name):
            if at == number:
                os.kill(os.getpid(), signal.SIGKILL)
        convert_on(Counting(kill), source, out + str(number), n_threads=1)
        os._exit(7)
    if os.wait()[1] != signal.SIGKILL:
        sys.exit(f"operation {number} was not reached")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each victim is a fork of one process")
def test_killed_at_any_operation_the_next_run_gives_the_same_file(
    source: Path, out: Path, whole: bytes
) -> None:
    done = operations(source, out)
    numbers = places(done)
    words = [sys.executable, "-c", KILLED, str(source), str(out), "1", *map(str, numbers)]
    subprocess.run(words, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    resumed = []
    for number in numbers:
        victim = out.with_name(out.name + str(number))
        resumed.append(finish(source, victim))
        assert victim.read_bytes() == whole, f"operation {number}, {done[number - 1]}"
    assert resumed == sorted(resumed)
    assert RESUMED <= {*resumed} <= {*range(14)}
    assert names(out) == {out.name + str(number) for number in numbers}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each victim is a fork of one process")
def test_a_kill_never_harms_the_file_that_is_to_be_replaced(
    source: Path, out: Path, whole: bytes
) -> None:
    counting = Counting()
    convert_on(counting, source, out, force=True)
    out.unlink()
    numbers = places(counting.done)
    victims = {number: out.with_name(out.name + str(number)) for number in numbers}
    for victim in victims.values():
        victim.write_bytes(b"precious")
    script = KILLED.replace("out + str(number)", "out + str(number), force=True")
    words = [sys.executable, "-c", script, str(source), str(out), "1", *map(str, numbers)]
    subprocess.run(words, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    resumed = []
    for number, victim in victims.items():
        renamed = number > counting.done.index("replace") + 1
        assert victim.read_bytes() == (whole if renamed else b"precious")
        if not renamed and (not LONG or number % 4 == 0):
            resumed.append(convert(source, victim, force=True).resumed)
            assert victim.read_bytes() == whole
    assert resumed == sorted(resumed)
    assert resumed[-1] == 13


@pytest.mark.parametrize(
    "failure", [MemoryError(), RuntimeError("can't start new thread")], ids=["memory", "threads"]
)
def test_what_the_system_does_not_give_is_told_and_what_was_done_is_kept(
    source: Path,
    out: Path,
    whole: bytes,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
) -> None:
    def fails(*_: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "read_back", fails)
        with pytest.raises(OutOfMemory, match=r"fewer --threads; 13 of 13 tensors are kept in .*"):
            convert(source, out)
    assert convert(source, out).resumed == 13
    assert out.read_bytes() == whole


# A Ctrl-C right after a lock was taken, which Python would leave taken: that of one `with` after
# another, on the main thread.
INTERRUPTED = """
import pathlib, signal, sys, threading
from edgesppo_convert import convert, output

source, out = map(pathlib.Path, sys.argv[1:3])
output.RECORD_EVERY = 1
enter, main, seen, at = threading.Condition.__enter__, threading.get_ident(), 0, 0

def entered(self):
    global seen
    found = enter(self)
    if threading.get_ident() == main:
        seen += 1
        if seen == at:
            signal.raise_signal(signal.SIGINT)
    return found

threading.Condition.__enter__ = entered
convert(source, out)
whole, reached, stopped = out.read_bytes(), 0, 0
for number in range(1, seen + 1, int(sys.argv[3])):
    out.unlink(missing_ok=True)
    seen, at = 0, number
    try:
        convert(source, out)
    except KeyboardInterrupt:
        stopped += 1
        assert not [t for t in threading.enumerate() if "edgesppo" in t.name]
    reached += seen >= number  # how many threads are needed differs from run to run
    at = 0
    if not out.exists():
        convert(source, out)
    assert out.read_bytes() == whole
print(stopped, reached)
"""


def test_ctrl_c_at_any_lock_ends_the_work(source: Path, out: Path) -> None:
    stride = 1 if LONG else STRIDE
    words = [sys.executable, "-c", INTERRUPTED, str(source), str(out), str(stride)]
    done = subprocess.run(words, capture_output=True, timeout=120, cwd=ROOT, check=True, text=True)
    stopped, reached = map(int, done.stdout.split())
    assert stopped == reached > 20 // stride
