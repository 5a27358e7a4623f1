"""Files are written completely or not at all, by any number of writers at once."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from edgesppo.errors import OutputError
from edgesppo.system import filelock
from edgesppo.system.fs import (
    FileSystem,
    atomic_write,
    is_abandoned,
    is_temporary,
    read_all,
    write_file,
)
from tests.support.faulty import Counting, Faulty


def test_concurrent_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, failures = tmp_path / "file", list[BaseException]()
    texts = [f"{n}".encode() * 5000 for n in range(8)]
    together = threading.Barrier(len(texts))

    class Slow(FileSystem):
        """Renames only when all the temporary files exist."""

        def replace(self, source: Path, target: Path) -> None:
            together.wait(60)
            super().replace(source, target)

    def write(text: bytes) -> None:
        try:
            atomic_write(path, text, files=Slow())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_bytes() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_whatever_fails_the_file_is_complete_and_no_temporary_file_is_left(tmp_path: Path) -> None:
    path, counting = tmp_path / "file", Counting()
    atomic_write(path, b"one", b" two", files=counting)
    assert path.read_bytes() == b"one two"
    for n in range(1, len(counting.done) + 1):
        path.write_bytes(b"before")
        with pytest.raises(OSError, match="Input/output"):
            atomic_write(path, b"one", b" two", files=Faulty(n))
        assert path.read_bytes() in (b"before", b"one two")
        assert list(tmp_path.iterdir()) == [path], f"operation {n}"


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_that_knows_no_locks_is_used_without_and_that_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    class NoLocks(FileSystem):
        def lock(self, descriptor: int) -> None:  # noqa: ARG002
            raise OSError(error, os.strerror(error))

    for _ in range(2):
        with filelock.acquire(tmp_path / "lock", NoLocks()):
            assert (tmp_path / "lock").exists()
    assert [*tmp_path.iterdir()] == []
    (notice,) = caplog.messages
    assert f"the disk of {tmp_path} does not support file locks" in notice


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OutputError, match="pipe: it is no regular file"):
        write_file(path, b"x")
    assert [*tmp_path.iterdir()] == [path]
    assert path.is_fifo()
    with pytest.raises(OutputError, match="it is a folder"):
        write_file(tmp_path, b"x")


def test_a_temporary_file_is_known_by_its_name_and_an_abandoned_one_by_its_age(
    tmp_path: Path,
) -> None:
    class Killed(Faulty):
        """The process is killed before the rename, and cleans up nothing."""

        def _fail(self, _number: int, name: str) -> None:
            if name in ("replace", "unlink"):
                raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        atomic_write(tmp_path / "chat.kv", b"text", files=Killed(0))
    (temporary,) = tmp_path.iterdir()
    assert is_temporary(temporary, ".kv")
    assert not is_temporary(temporary, ".json")
    assert not is_temporary(tmp_path / ".chat.kv.lock", "")
    assert not is_temporary(tmp_path / "chat.kv", "")
    assert not is_abandoned(temporary, ".kv")
    os.utime(temporary, (0, 0))
    assert is_abandoned(temporary, ".kv")


@pytest.mark.parametrize(("code", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synced_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, *, fails: bool
) -> None:
    """As some file systems of networks cannot; a real fault is told."""
    sync = os.fsync

    def of_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_only)
    if fails:
        with pytest.raises(OSError, match="Input/output"):
            atomic_write(tmp_path / "file", b"text", files=FileSystem())
    else:
        atomic_write(tmp_path / "file", b"text", files=FileSystem())
        assert (tmp_path / "file").read_bytes() == b"text"


def test_a_limit_far_beyond_a_files_size_takes_no_memory(tmp_path: Path) -> None:
    asked: list[int] = []

    class Noting(FileSystem):
        def read(self, descriptor: int, count: int, offset: int) -> bytes:
            asked.append(count)
            return super().read(descriptor, count, offset)

    path = tmp_path / "file"
    path.write_bytes(b"x" * 5_000_000)
    with path.open("rb") as file:
        assert read_all(Noting(), file.fileno(), 1 << 40) == path.read_bytes()
        assert read_all(Noting(), file.fileno(), 7) == b"x" * 7
    assert max(asked) <= 4 << 20


def test_a_file_that_is_in_use_for_a_moment_is_replaced_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, refusals = tmp_path / "new", tmp_path / "old", [PermissionError()] * 3
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    monkeypatch.setattr("edgesppo.system.fs._BUSY_S", 60.0)
    real = Path.replace

    def replace(self: Path, to: Path) -> Path:
        if refusals:
            raise refusals.pop()
        return real(self, to)

    monkeypatch.setattr(Path, "replace", replace)
    FileSystem().replace(source, target)
    assert target.read_bytes() == b"new"


def test_a_file_that_stays_in_use_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("edgesppo.system.fs._BUSY_S", 0.05)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        FileSystem().replace(tmp_path / "new", tmp_path / "old")
