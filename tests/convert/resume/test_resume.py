"""What an interrupted conversion left is used while it is sound and its own, else not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.errors import BadCheckpoint, OutputError
from edgesppo.system.fs import FileSystem
from edgesppo.terminal import progress as shown
from edgesppo_convert import Progress, convert
from edgesppo_convert.output.journal import Journal
from edgesppo_convert.output.output import journal_path, part_path
from tests.convert.resume.stopped import stop_after
from tests.support.faulty import Short, convert_on
from tests.support.imatrix_files import random_sums, write_dat
from tests.support.paths import ROOT, names

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_an_interrupted_conversion_is_resumed(source: Path, out: Path, whole: bytes) -> None:
    stop_after(source, out, 45_000)
    assert names(out) == {part_path(out).name, journal_path(out).name}
    for path in source.glob("*.safetensors"):
        path.chmod(0o600)  # as a FAT disk gives other inodes and times of change when mounted anew
    seen: list[Progress] = []
    result = convert(source, out, on_progress=seen.append)
    assert 0 < result.resumed < result.tensors
    stages = dict.fromkeys(p.stage for p in seen if p.stage != "hashing")  # where that takes long
    assert list(stages) == ["checking", "converting", "reading back"]
    checked = [progress for progress in seen if progress.stage == "checking"]
    made = [progress for progress in seen if progress.stage == "converting"]
    assert len({progress.tensor for progress in made} - {""}) == result.tensors - result.resumed
    assert checked[-1].done_bytes == checked[-1].total_bytes == made[0].done_bytes > 0
    assert seen[-1].done_bytes == seen[-1].total_bytes
    assert out.read_bytes() == whole
    assert names(out) == {out.name}


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_conversion_that_is_told_to_end_says_what_is_kept(
    source: Path, out: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(progress: Progress) -> None:
        if progress.done_bytes >= 45_000:
            os.kill(os.getpid(), signal.SIGTERM)

    words = ["convert", str(source), "-o", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(shown, "conversion_progress", lambda _: nullcontext(end))
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 128 + signal.SIGTERM
    assert re.search(r"stopped; \d+ of 13 tensors are kept in .*: run the same", result.stderr)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    CliRunner().invoke(main, words, catch_exceptions=False)
    assert out.read_bytes() == whole


def test_short_reads_and_writes_lose_nothing(source: Path, out: Path, whole: bytes) -> None:
    stop_after(source, out, 45_000)
    assert convert_on(Short(), source, out).resumed > 0
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
        convert(source, out, imatrix=matrices[0], on_progress=interrupt)
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

    convert(source, out, on_progress=meanwhile)
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
        convert_on(Forgetful(), source, out)
    assert names(out) == set()


def test_a_copy_with_the_same_time_is_another_file(
    source: Path, out: Path, whole: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(source, mine)
    stop_after(mine, out, 45_000)
    caplog.clear()
    for path in mine.glob("*.safetensors"):
        times = path.stat()
        data = path.read_bytes()
        path.write_bytes(data[:-64] + bytes(64))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert convert(mine, out).resumed == 0
    assert out.read_bytes() != whole
    assert "that an earlier run finished are made again" in caplog.text


def test_ctrl_c_when_the_output_has_its_name_promises_nothing_and_leaves_nothing(
    source: Path, out: Path, whole: bytes
) -> None:
    class Interrupting(FileSystem):
        def link(self, source: Path, target: Path) -> None:
            super().link(source, target)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        convert_on(Interrupting(), source, out)
    assert caught.value.args == ()
    assert out.read_bytes() == whole
    assert names(out) == {out.name}
