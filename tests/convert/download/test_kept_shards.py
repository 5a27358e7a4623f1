"""Shards that are to be kept become a checkpoint folder, whole and of nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import OutputError
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import parse_repository
from edgesppo.system.fs import FileSystem
from edgesppo_convert import convert
from edgesppo_convert.source.hub_checkpoint import RemoteCheckpoint
from tests.convert.download.conversion import (
    FIRST,
    SECOND,
    SOURCE,
    beside,
    is_whole_checkpoint,
    kept,
    stop_at,
)
from tests.support.faulty import Counting, convert_on
from tests.support.paths import names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_hub import FakeHub


def test_kept_shards_are_a_checkpoint_folder(hub: FakeHub, out: Path, whole: bytes) -> None:
    convert(SOURCE, out, keep=True)
    assert out.read_bytes() == whole
    assert names(out) == {out.name, kept(out).name}
    assert is_whole_checkpoint(kept(out), hub.folder)
    assert kept(out).stat().st_mode == out.parent.stat().st_mode
    convert(kept(out), out.with_name("again.gguf"))


@pytest.mark.parametrize("shard", [FIRST, SECOND])
def test_interrupted_without_keep_and_resumed_with_it_keeps_everything(
    hub: FakeHub, out: Path, whole: bytes, shard: str
) -> None:
    hub.faults[shard] = ["", "cut"]
    with pytest.raises(KeyboardInterrupt):
        convert(SOURCE, out, on_fetch=stop_at(shard, 0.4))
    asked = len(hub.requests)
    convert(SOURCE, out, keep=True)
    assert out.read_bytes() == whole
    assert names(out) == {out.name, kept(out).name}
    assert is_whole_checkpoint(kept(out), hub.folder)
    ranges = [
        headers["Range"]
        for kind, name, headers in hub.requests[asked:]
        if (kind, name) == ("data", shard)
    ]
    assert ranges[-1].startswith(f"bytes={(hub.folder / shard).stat().st_size // 2}-")


def test_what_was_kept_is_not_fetched_again(hub: FakeHub, out: Path, whole: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(SOURCE, out, keep=True, on_fetch=stop_at(SECOND))
    assert (kept(out) / FIRST).read_bytes() == (hub.folder / FIRST).read_bytes()
    before = len(hub.asked(FIRST))
    convert(SOURCE, out, keep=True)
    assert len(hub.asked(FIRST)) == before + 1  # its header
    assert out.read_bytes() == whole
    assert is_whole_checkpoint(kept(out), hub.folder)


@pytest.mark.parametrize("keep", [False, True])
def test_ctrl_c_in_the_first_shard_says_that_it_is_kept(
    hub: FakeHub, out: Path, whole: bytes, keep: bool
) -> None:
    hub.faults[FIRST] = ["", "cut"]
    with pytest.raises(KeyboardInterrupt, match="what was downloaded is kept: run the same"):
        convert(SOURCE, out, keep=keep, on_fetch=stop_at(FIRST, 0.4))
    out.with_name(".model.gguf.edgesppo-shard-fedcba9876543210").write_bytes(b"of another one")
    convert(SOURCE, out, keep=keep)
    assert out.read_bytes() == whole
    assert names(out) == {out.name, *([kept(out).name] if keep else [])}


def test_ctrl_c_before_anything_was_fetched_promises_nothing(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        convert(SOURCE, out, on_fetch=stop_at("config.json", 0))
    assert caught.value.args == ()
    assert names(out) == set()


@pytest.mark.parametrize("keep", [False, True])
def test_ctrl_c_before_the_first_byte_of_a_shard_leaves_no_empty_file(
    out: Path, keep: bool
) -> None:
    class Stopping(Counting):
        def open_or_create(self, path: Path, *mode: int) -> int:
            descriptor = super().open_or_create(path, *mode)
            if "shard" in path.name:
                self.close(descriptor)
                raise KeyboardInterrupt
            return int(descriptor)

    with pytest.raises(KeyboardInterrupt) as caught:
        convert_on(Stopping(), SOURCE, out, keep=keep)
    assert caught.value.args == ()
    assert names(out) == ({kept(out).name} if keep else set())


def spare(out: Path, *, keep: bool) -> int:
    repository = parse_repository(SOURCE)
    assert repository is not None
    with RemoteCheckpoint(HubClient(), repository, out, FileSystem(), keep=keep) as checkpoint:
        return checkpoint.extra_disk_space


def test_the_space_that_is_asked_for_is_what_will_be_taken(hub: FakeHub, out: Path) -> None:
    shards = [(hub.folder / name).read_bytes() for name in (FIRST, SECOND)]
    sizes = [len(data) for data in shards]
    everything = sum(path.stat().st_size for path in hub.folder.iterdir())
    assert spare(out, keep=False) == max(sizes)
    assert spare(out, keep=True) == everything
    beside(out, shards[0]).write_bytes(shards[0][:1000])
    assert spare(out, keep=False) == max(sizes) - 1000
    assert spare(out, keep=True) == everything - 1000
    kept(out).mkdir()
    (kept(out) / SECOND).write_bytes(shards[1])
    assert spare(out, keep=True) == everything - 1000 - sizes[1]


def test_a_file_where_the_checkpoint_is_to_be_kept_is_refused(hub: FakeHub, out: Path) -> None:
    kept(out).write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"model\.gguf\.checkpoint, where --keep .* not a folder"):
        convert(SOURCE, out, keep=True)
    assert hub.requests == []
    assert kept(out).read_bytes() == b"precious"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_what_is_kept_is_never_written_through_a_link(
    hub: FakeHub, out: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    kept(out).mkdir()
    for name in ("config.json", FIRST):
        (kept(out) / name).symlink_to(precious)
    convert(SOURCE, out, keep=True)
    assert precious.read_bytes() == b"precious"
    assert is_whole_checkpoint(kept(out), hub.folder)
    assert not any(path.is_symlink() for path in kept(out).iterdir())


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_a_link_to_another_disk_cannot_be_where_it_is_kept(out: Path, tmp_path: Path) -> None:
    kept(out).symlink_to(tmp_path)
    with pytest.raises(OutputError, match="is not a folder; move it away"):
        convert(SOURCE, out, keep=True)


def test_a_conversion_of_a_folder_drops_what_one_from_the_hub_has_left(
    hub: FakeHub, out: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(SOURCE, out, on_fetch=stop_at(SECOND))
    assert any("shard" in name for name in names(out))
    convert(hub.folder, out)
    assert names(out) == {out.name}
