"""What a conversion from the hub leaves on the disk and finds there: nothing is lost or left."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BadCheckpoint, DownloadError, OutputError, SourceUnreadable
from edgesppo_convert import convert
from edgesppo_convert.source.safetensors import Shard
from tests.convert.download.conversion import (
    FIRST,
    SECOND,
    SOURCE,
    TINY,
    beside,
    is_whole_checkpoint,
    kept,
    stop_at,
)
from tests.support.checkpoints import write_checkpoint
from tests.support.faulty import Counting, convert_on
from tests.support.paths import names

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

    from tests.support.fake_hub import FakeHub


def test_a_second_command_harms_nothing_of_the_first(out: Path, whole: bytes) -> None:
    tried = []

    def fetched(name: str, *_: int) -> None:
        if name == SECOND and not tried:
            for keep in (False, True):
                before = names(out)
                assert any("shard" in name for name in before)
                with pytest.raises(OutputError, match="is being written by process"):
                    convert(SOURCE, out, keep=keep)
                assert names(out) == before
                tried.append(keep)

    convert(SOURCE, out, on_fetch=fetched)
    assert tried == [False, True]
    assert out.read_bytes() == whole
    assert names(out) == {out.name}


def test_what_was_found_wrong_is_dropped_before_the_lock_is_free(
    hub: FakeHub, out: Path, tmp_path: Path
) -> None:
    hub.folder = write_checkpoint(tmp_path / "bad", TINY, shards=2)
    with (hub.folder / SECOND).open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\xc0\x7f")  # not a number
    removed: list[str] = []

    class Recording(Counting):
        def unlink(self, path: Path) -> None:
            removed.append(path.name.split("-")[1])
            super().unlink(path)

    with pytest.raises(BadCheckpoint):
        convert_on(Recording(), SOURCE, out)
    assert removed[-3:] == ["shard", "part", "journal"]
    assert names(out) == set()


def test_a_shard_that_cannot_be_read_now_stays(
    out: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Shard._fill

    def fail(shard: Shard, buffer: memoryview, file: FileIO) -> None:
        if shard.name == SECOND and len(buffer) > 1000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(shard, buffer, file)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "_fill", fail)
        with pytest.raises(SourceUnreadable, match="cannot read"):
            convert(SOURCE, out)
    assert any("shard" in name for name in names(out))
    convert(SOURCE, out)
    assert out.read_bytes() == whole
    assert names(out) == {out.name}


def test_a_wrong_shard_is_fetched_once_more(hub: FakeHub, out: Path, whole: bytes) -> None:
    hub.faults[SECOND] = ["", "wrong"]
    convert(SOURCE, out)
    assert out.read_bytes() == whole


def test_a_shard_that_stays_wrong_is_refused_with_both_hashes(hub: FakeHub, out: Path) -> None:
    hub.faults[SECOND] = ["", "wrong", "wrong"]
    data = (hub.folder / SECOND).read_bytes()
    wrong, right = (hashlib.sha256(d).hexdigest() for d in (data[:-1] + b"?", data))
    with pytest.raises(
        DownloadError, match=f"{wrong}, then with {wrong}, but the hub says {right}"
    ):
        convert(SOURCE, out)
    assert not [name for name in names(out) if "shard" in name]


@pytest.mark.parametrize("left", [b"stale", b"s" * 10_000_000, None])
def test_what_an_earlier_run_has_left_does_not_count_as_fetched(
    hub: FakeHub, out: Path, whole: bytes, left: bytes | None
) -> None:
    data = (hub.folder / SECOND).read_bytes()
    left = left or data[:500] + b"?" + data[501:]
    hub.faults[SECOND] = ["", *(["wrong"] if len(left) < len(data) else []), "wrong"]
    beside(out, data).write_bytes(left)
    convert(SOURCE, out)
    assert hub.faults[SECOND] == []
    assert out.read_bytes() == whole


def test_what_was_left_and_is_longer_than_the_shard_is_cut(
    hub: FakeHub, out: Path, whole: bytes
) -> None:
    data = (hub.folder / SECOND).read_bytes()
    beside(out, data).write_bytes(data + b"more")
    convert(SOURCE, out)
    assert len(hub.asked(SECOND)) == 1  # its header
    assert out.read_bytes() == whole


def test_what_was_kept_and_rotted_is_fetched_anew(hub: FakeHub, out: Path, whole: bytes) -> None:
    kept(out).mkdir()
    for path in hub.folder.iterdir():
        (kept(out) / path.name).write_bytes(path.read_bytes()[:-1] + b"?")
    convert(SOURCE, out, keep=True)
    assert out.read_bytes() == whole
    assert is_whole_checkpoint(kept(out), hub.folder)


def test_what_an_earlier_run_has_left_and_cannot_be_read_is_fetched_anew(
    hub: FakeHub, out: Path, whole: bytes
) -> None:
    place = beside(out, (hub.folder / SECOND).read_bytes())
    place.write_bytes(b"whatever")
    rotten = place.stat().st_ino

    class Rotten(Counting):
        def read(self, descriptor: int, length: int, offset: int) -> bytes:
            if os.fstat(descriptor).st_ino == rotten:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(descriptor, length, offset)

    with place.open("rb"):  # so that its number is not given to another
        convert_on(Rotten(), SOURCE, out)
    assert out.read_bytes() == whole


def test_the_small_files_touch_no_disk(
    out: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there is none"))
    seen = []

    def fetched(name: str, *_: int) -> None:
        if not name.endswith(".safetensors"):
            assert names(out) == set()
            seen.append(name)

    convert(SOURCE, out, on_fetch=fetched)
    assert "tokenizer.model" in seen
    assert out.read_bytes() == whole


def test_ctrl_c_during_a_download_is_resumed(hub: FakeHub, out: Path, whole: bytes) -> None:
    hub.faults[SECOND] = ["", "cut"]
    with pytest.raises(KeyboardInterrupt, match="tensors are kept in"):
        convert(SOURCE, out, on_fetch=stop_at(SECOND, 0.4))
    assert any("shard" in name for name in names(out))
    before = len(hub.asked(FIRST))
    assert convert(SOURCE, out).resumed > 0
    assert out.read_bytes() == whole
    assert names(out) == {out.name}
    assert len(hub.asked(FIRST)) == before + 1  # its header only
    size = (hub.folder / SECOND).stat().st_size
    assert hub.asked(SECOND)[-1]["Range"] == f"bytes={size // 2}-{size - 1}"


def test_a_conversion_is_resumed_after_the_hub_went_away(
    hub: FakeHub, out: Path, whole: bytes
) -> None:
    hub.faults[SECOND] = ["", "cut", *["503"] * 6]
    with pytest.raises(DownloadError, match="503"):
        convert(SOURCE, out)
    assert any("shard" in name for name in names(out))
    assert convert(SOURCE, out).resumed > 0
    assert out.read_bytes() == whole
    assert names(out) == {out.name}
