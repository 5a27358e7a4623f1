"""Nothing is lost: whatever ends a conversion, and whenever, the next run gives the same file."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BadCheckpoint, OutOfMemory, OutputError, SourceUnreadable
from edgesppo.system.fs import FileSystem
from edgesppo_convert import Progress, convert, pipeline
from edgesppo_convert.output import output
from edgesppo_convert.output.journal import Journal
from edgesppo_convert.output.output import journal_path, part_path
from edgesppo_convert.output.part_file import PartFile
from edgesppo_convert.source.safetensors import Shard
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.faulty import Counting, Faulty, PowerCut, Short, Volatile
from tests.support.imatrix_files import random_sums, write_dat
from tests.support.paths import ROOT
from tests.support.sweeps import LONG, STRIDE, places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

SMALL = Shape(1, 64, 64, 2, 1, 32, 600, 256, 64)
# How many tensors a sweep finds again, at least: all numbers only where it tries all operations.
RESUMED = {*range(14)} if LONG else {0, 13}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "model", SMALL, shards=2)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("whole") / "model.gguf"
    convert(source, out)
    return out.read_bytes()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


@pytest.fixture(autouse=True)
def _claim_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "RECORD_EVERY", 1)


def names(out: Path) -> set[str]:
    return {path.name for path in out.parent.iterdir()}


def wipe(out: Path) -> None:
    for path in out.parent.iterdir():
        path.unlink()


def operations(source: Path, out: Path) -> list[str]:
    counting = Counting()
    pipeline.convert(source, out, files=counting)
    out.unlink()
    return counting.done


def finish(source: Path, out: Path, threads: int = 1) -> int:
    """Run the same command again, as a person would; the number of tensors that it resumed."""
    if not out.exists():
        return pipeline.convert(source, out, threads=threads, files=Counting()).resumed
    with pytest.raises(OutputError, match="exists already; use --force"):
        convert(source, out)
    return 13


def stop_after(source: Path, out: Path, bytes_done: int) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done_bytes >= bytes_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"\d+ of 13 tensors are kept in .*: run the same"):
        convert(source, out, progress=interrupt)


@pytest.mark.parametrize("error", [errno.EIO, KeyboardInterrupt()])
def test_after_a_fault_at_any_operation_the_next_run_gives_the_same_file(
    source: Path, out: Path, whole: bytes, error: int | BaseException
) -> None:
    done = operations(source, out)
    for number in places(done):
        # Cleaning up after the rename may fail silently.
        with suppress(OutputError, KeyboardInterrupt):
            pipeline.convert(source, out, files=Faulty(number, error))
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
            pipeline.convert(source, out, files=Faulty(number, errno.ENOSPC))
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
        if len(reads) == 14:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(shard, buffer, file)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "_fill", fill)
        with pytest.raises(
            SourceUnreadable, match=r"cannot read .*; \d+ of 13 tensors are kept in"
        ):
            convert(source, out, threads=1)
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
            pipeline.convert(source, out, threads=1, files=files)
        resumed.append(finish(source, out))
        assert resumed[-1] == files.claimed, f"operation {number}, {done[number - 1]}"
        assert out.read_bytes() == whole
        out.unlink()
    assert RESUMED <= {*resumed} <= {*range(14)}


def test_two_faults_in_a_row(source: Path, out: Path, whole: bytes) -> None:
    for number in range(1, 70, 4 if LONG else 16):
        stop_after(source, out, 45_000)
        with suppress(OutputError):
            pipeline.convert(source, out, files=Faulty(number))
        finish(source, out)
        assert out.read_bytes() == whole
        out.unlink()


KILLED = """
import os, signal, sys
from edgesppo_convert import pipeline
from edgesppo_convert.output import output
from tests.support.imatrix_files import random_sums, write_dat
from tests.support.faulty import Counting

source, out, claim = sys.argv[1:4]
output.RECORD_EVERY = int(claim)
pipeline.convert(source, out, threads=1)  # loads what every victim needs
os.unlink(out)
for number in map(int, sys.argv[4:]):
    if os.fork() == 0:
        def kill(at, name):
            if at == number:
                os.kill(os.getpid(), signal.SIGKILL)
        pipeline.convert(source, out + str(number), threads=1, files=Counting(kill))
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
    pipeline.convert(source, out, force=True, files=counting)
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


def test_an_interrupted_conversion_is_resumed(source: Path, out: Path, whole: bytes) -> None:
    stop_after(source, out, 45_000)
    assert names(out) == {part_path(out).name, journal_path(out).name}
    seen: list[Progress] = []
    result = convert(source, out, progress=seen.append)
    assert 0 < result.resumed < result.tensors
    assert list(dict.fromkeys(p.stage for p in seen)) == ["checking", "converting", "reading back"]
    checked = [progress for progress in seen if progress.stage == "checking"]
    made = [progress for progress in seen if progress.stage == "converting"]
    assert len({progress.tensor for progress in made} - {""}) == result.tensors - result.resumed
    assert checked[-1].done_bytes == checked[-1].total_bytes == made[0].done_bytes > 0
    assert seen[-1].done_bytes == seen[-1].total_bytes
    assert out.read_bytes() == whole
    assert names(out) == {out.name}


def test_short_reads_and_writes_lose_nothing(source: Path, out: Path, whole: bytes) -> None:
    stop_after(source, out, 45_000)
    assert pipeline.convert(source, out, files=Short()).resumed > 0
    assert out.read_bytes() == whole


def test_a_tensor_that_rotted_meanwhile_is_made_anew(source: Path, out: Path, whole: bytes) -> None:
    for place in (len(whole) // 3, len(whole) // 2, 8):
        stop_after(source, out, 50_000)
        with part_path(out).open("r+b") as file:
            file.seek(place)
            file.write(b"rot!")
        convert(source, out)
        assert out.read_bytes() == whole
        out.unlink()


@pytest.mark.parametrize("length", [0, 5, 60, 300, -1, -3, -70])
def test_a_torn_journal_is_sound_up_to_the_tear(
    source: Path, out: Path, whole: bytes, length: int
) -> None:
    stop_after(source, out, 50_000)
    journal = journal_path(out)
    journal.write_bytes(journal.read_bytes()[:length] + b"7f3a")
    convert(source, out)
    assert out.read_bytes() == whole
    assert names(out) == {out.name}


def test_a_part_file_that_is_gone_or_foreign_is_begun_anew(
    source: Path, out: Path, whole: bytes
) -> None:
    for spoil in (Path.unlink, lambda part: part.write_bytes(b"")):
        stop_after(source, out, 50_000)
        spoil(part_path(out))
        assert convert(source, out).resumed == 0
        assert out.read_bytes() == whole
        out.unlink()
    part_path(out).write_bytes(b"whatever")  # without a journal
    assert convert(source, out).resumed == 0
    assert out.read_bytes() == whole


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_a_link_in_the_part_files_place_is_never_followed(
    source: Path, out: Path, whole: bytes, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    part_path(out).symlink_to(precious)
    convert(source, out)
    assert precious.read_bytes() == b"precious"
    assert out.read_bytes() == whole
    assert not out.is_symlink()


def test_another_conversion_does_not_go_on_from_it(source: Path, out: Path, tmp_path: Path) -> None:
    expected = convert(source, tmp_path / "q8.gguf", type="q8_0")
    stop_after(source, out, 50_000)
    result = convert(source, out, type="q8_0")
    assert (result.resumed, result.sha256) == (0, expected.sha256)


def test_another_importance_matrix_does_not_go_on_from_it(
    source: Path, out: Path, tmp_path: Path
) -> None:
    matrices = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        sums = random_sums({"blk.0.attn_q.weight": 64}, seed)
        matrices.append(write_dat(tmp_path / str(seed) / "same-name.dat", sums))
    expected = convert(source, tmp_path / "expected.gguf", imatrix=matrices[1])

    def interrupt(progress: Progress) -> None:
        if progress.done_bytes > 50_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, out, imatrix=matrices[0], progress=interrupt)
    result = convert(source, out, imatrix=matrices[1])
    assert (result.resumed, result.sha256) == (0, expected.sha256)


def test_an_edited_checkpoint_is_begun_anew(source: Path, out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    stop_after(copy, out, 50_000)
    shard = copy / "model-00002-of-00002.safetensors"
    with shard.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x12\x3f")
    expected = convert(copy, tmp_path / "expected.gguf")
    result = convert(copy, out)
    assert (result.resumed, result.sha256) == (0, expected.sha256)


def test_bad_weights_leave_nothing(source: Path, out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    with (copy / "model-00002-of-00002.safetensors").open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\xc0\x7f")  # not a number
    with pytest.raises(BadCheckpoint):
        convert(copy, out)
    assert names(out) == set()


@pytest.fixture
def busy(out: Path) -> Iterator[None]:
    """Another process holds this output's lock."""
    other = Journal(journal_path(out), out, FileSystem())
    other.start("whatever", restart=True)
    yield
    other.close(remove=True)


@pytest.mark.usefixtures("busy")
def test_the_second_of_two_says_who_is_at_work(source: Path, out: Path) -> None:
    before = journal_path(out).read_bytes()
    with pytest.raises(OutputError, match=rf"is being written by process {os.getpid()} on .+; wai"):
        convert(source, out)
    assert journal_path(out).read_bytes() == before


def test_two_at_once_give_one_file(source: Path, out: Path, whole: bytes) -> None:
    def meanwhile(_: Progress) -> None:
        with pytest.raises(OutputError, match="is being written by process"):
            convert(source, out)

    convert(source, out, progress=meanwhile)
    assert out.read_bytes() == whole
    assert names(out) == {out.name}


def test_the_lock_of_a_dead_process_holds_nobody_up(source: Path, out: Path, whole: bytes) -> None:
    program = (
        "import sys, pathlib\nfrom edgesppo_convert.output.journal import Journal\n"
        "from edgesppo.system.fs import FileSystem\n"
        "out = pathlib.Path(sys.argv[1])\n"
        "journal = out.with_name(f'.{out.name}.edgesppo-journal')\n"
        "Journal(journal, out, FileSystem()).start('x', restart=True)"
    )
    subprocess.run([sys.executable, "-c", program, str(out)], check=True, cwd=ROOT)
    assert names(out) == {journal_path(out).name}
    convert(source, out)
    assert out.read_bytes() == whole


def test_a_disk_that_forgets_is_found_out(source: Path, out: Path) -> None:
    class Forgetful(FileSystem):
        written = 0

        def write(self, descriptor: int, data: bytes, offset: int) -> int:
            self.written += 1
            kept = b"\0" * len(data) if self.written == 9 else data
            return super().write(descriptor, kept, offset)

    with pytest.raises(OutputError, match="differs from what was written, in "):
        pipeline.convert(source, out, files=Forgetful())
    assert names(out) == set()


def test_a_copy_with_the_same_time_is_another_file(
    source: Path, out: Path, whole: bytes, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(source, mine)
    stop_after(mine, out, 45_000)
    for path in mine.glob("*.safetensors"):
        times = path.stat()
        data = path.read_bytes()
        path.write_bytes(data[:-64] + bytes(64))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert convert(mine, out).resumed == 0
    assert out.read_bytes() != whole


def test_ctrl_c_when_the_output_has_its_name_promises_nothing_and_leaves_nothing(
    source: Path, out: Path, whole: bytes
) -> None:
    class Interrupting(FileSystem):
        def link(self, source: Path, target: Path) -> None:
            super().link(source, target)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        pipeline.convert(source, out, files=Interrupting())
    assert caught.value.args == ()
    assert out.read_bytes() == whole
    assert names(out) == {out.name}


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
