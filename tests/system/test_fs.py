"""Files that are written whole or not at all, by however many at once."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from edgesppo.system.fs import FileSystem, atomic_write, is_abandoned, is_draft
from tests.support.faulty import Counting, Faulty

if TYPE_CHECKING:
    from pathlib import Path


def test_writers_of_the_same_file_never_meet(tmp_path: Path) -> None:
    path, failures = tmp_path / "file", list[BaseException]()
    texts = [f"{n}".encode() * 5000 for n in range(8)]
    together = threading.Barrier(len(texts))

    class Slow(FileSystem):
        """All drafts are there at once."""

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


def test_whatever_fails_the_file_is_whole_and_no_draft_stays(tmp_path: Path) -> None:
    path, counting = tmp_path / "file", Counting()
    atomic_write(path, b"one", b" two", files=counting)
    assert path.read_bytes() == b"one two"
    for n in range(1, len(counting.done) + 1):
        path.write_bytes(b"before")
        with pytest.raises(OSError, match="Input/output"):
            atomic_write(path, b"one", b" two", files=Faulty(n))
        assert path.read_bytes() in (b"before", b"one two")
        assert list(tmp_path.iterdir()) == [path], f"operation {n}"


def test_a_draft_is_told_by_its_name_and_one_that_was_left_by_its_age(tmp_path: Path) -> None:
    class Killed(Faulty):
        """The process ends before the draft gets its name, and cleans up nothing."""

        def _fail(self, _number: int, name: str) -> None:
            if name in ("replace", "unlink"):
                raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        atomic_write(tmp_path / "chat.kv", b"text", files=Killed(0))
    (draft,) = tmp_path.iterdir()
    assert is_draft(draft, ".kv")
    assert not is_draft(draft, ".json")
    assert not is_draft(tmp_path / ".chat.kv.lock")
    assert not is_draft(tmp_path / "chat.kv")
    assert not is_abandoned(draft, ".kv")
    os.utime(draft, (0, 0))
    assert is_abandoned(draft, ".kv")
