"""The file records the hashes of its shards: computed while they are read, and still valid."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BadCheckpoint, SourceUnreadable
from edgesppo_convert import Progress, convert
from edgesppo_convert.source import shard_hashes
from edgesppo_convert.source.checkpoint import Checkpoint
from edgesppo_convert.source.safetensors import Shard
from edgesppo_convert.source.shard_hashes import ShardHashes
from tests.support import fake_hub as fake_hub
from tests.support.checkpoints import SMALL, write_checkpoint
from tests.support.fake_hub import REPOSITORY, REVISION, cached
from tests.support.same_model import keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", SMALL, shards=3)


def true_hashes(folder: Path) -> list[str]:
    return [
        f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.glob("*.safetensors"))
    ]


def stated(out: Path) -> list[str]:
    found = keys_of(out)["edgesppo.source.weights"]
    assert isinstance(found, list)
    return found


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if "edgesppo" in thread.name]


def test_every_shards_hash_is_that_of_its_bytes(source: Path, out: Path, tmp_path: Path) -> None:
    convert(source, out)
    assert stated(out) == true_hashes(source)
    convert(cached(source, tmp_path), out, force=True)
    assert stated(out) == true_hashes(source)
    assert no_thread_is_left()


def test_a_rotten_download_is_refused_with_both_hashes(
    source: Path, out: Path, tmp_path: Path
) -> None:
    snapshot = cached(source, tmp_path)
    blob = (snapshot / SECOND).resolve()
    with blob.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x12\x3f")
    found = hashlib.sha256(blob.read_bytes()).hexdigest()
    with pytest.raises(
        BadCheckpoint, match=f"{SECOND} is damaged: its sha256 is {found}, .*{blob.name}; del"
    ):
        convert(snapshot, out)
    assert list(out.parent.iterdir()) == []
    assert no_thread_is_left()


def change_at(stage: str, path: Path) -> Callable[[Progress], None]:
    """A callback that changes the last weight once, when this stage begins."""
    done: list[bool] = []

    def change(progress: Progress) -> None:
        if progress.stage == stage and not done:
            done.append(True)
            with path.open("r+b") as file:
                file.seek(-2, os.SEEK_END)
                file.write(b"\x34\x3f")

    return change


@pytest.mark.parametrize("shard", [1, 2, 3])
def test_a_shard_that_changes_while_it_is_read_is_refused(
    source: Path, out: Path, shard: int
) -> None:
    path = source / f"model-0000{shard}-of-00003.safetensors"
    with pytest.raises(BadCheckpoint, match=rf"checkpoint has changed: {path} was written to"):
        convert(source, out, on_progress=change_at("converting", path))
    assert list(out.parent.iterdir()) == []


def test_a_shard_that_changes_while_an_older_part_is_checked_is_refused(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesppo_convert.output.output.RECORD_EVERY", 1)

    def stop(progress: Progress) -> None:
        if progress.done_bytes > 50_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="tensors are kept"):
        convert(source, out, on_progress=stop)
    with pytest.raises(BadCheckpoint, match="the checkpoint has changed"):
        convert(source, out, on_progress=change_at("checking", source / SECOND))
    assert list(out.parent.iterdir()) == []


def test_a_shard_that_cannot_be_hashed_now_ends_the_run_and_keeps_what_was_done(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesppo_convert.output.output.RECORD_EVERY", 1)

    real = Shard.read_span

    def fail(shard: Shard, begin: int, end: int) -> bytearray:
        if shard.name == SECOND:
            raise SourceUnreadable(f"cannot read {shard.path}: {os.strerror(errno.EIO)}")
        return real(shard, begin, end)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "read_span", fail)
        with pytest.raises(SourceUnreadable, match=r"put error; \d+ of 13 tensors are kept"):
            convert(source, out, n_threads=1)
    assert no_thread_is_left()
    convert(source, out)
    assert stated(out) == true_hashes(source)


class Spans:
    """Records which spans of the shards are read for their hashes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[tuple[str, int, int]] = []
        self._came = threading.Condition()
        real = Shard.read_span

        def span(shard: Shard, begin: int, end: int) -> bytearray:
            with self._came:
                self.read.append((shard.name, begin, end))
                self._came.notify()
            return real(shard, begin, end)

        monkeypatch.setattr(Shard, "read_span", span)

    def wait_for(self, *spans: tuple[str, int, int]) -> None:
        with self._came:
            assert self._came.wait_for(lambda: self.read[-len(spans) :] == [*spans], timeout=30)


def test_what_is_still_to_be_hashed_is_reported_and_ctrl_c_ends_it(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of shards of which an earlier run has converted all."""
    monkeypatch.setattr(shard_hashes, "WAIT_S", 0.001)
    go_on, real = threading.Event(), Shard.read_span
    seen: list[Progress] = []

    def hold(shard: Shard, begin: int, end: int) -> bytearray:
        go_on.wait(60)
        return real(shard, begin, end)

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress.stage == "hashing":
            go_on.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(Shard, "read_span", hold)
    with pytest.raises(KeyboardInterrupt):
        convert(source, out, on_progress=report)
    assert seen[-1].total_bytes == sum(path.stat().st_size for path in source.glob("*.safetensors"))
    assert no_thread_is_left()


def test_nothing_is_read_for_its_hash_before_the_conversion_read_it(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what is hashed is still in the system's page cache."""
    monkeypatch.setattr(shard_hashes, "BLOCK", 4000)
    spans = Spans(monkeypatch)
    with Checkpoint(source) as checkpoint:
        first, second, third = checkpoint.shards
        known = ShardHashes(checkpoint.shards, downloaded=False)
        with known.watch(checkpoint.shards) as watch:
            watch.read(first, 5000, first.read_span(5000, 6000))
            a, b = first.name, second.name
            spans.wait_for((a, 5000, 6000), (a, 0, 4000), (a, 4000, 5000))
            watch.read(second, 0, second.read_span(0, 1000))
            places = [*range(6000, first.size, 4000), first.size]
            spans.wait_for((b, 0, 1000), *((a, *each) for each in itertools.pairwise(places)))
    assert known.digests == {
        shard.name: hashlib.sha256(shard.path.read_bytes()).hexdigest()
        for shard in (first, second, third)
    }
    assert no_thread_is_left()


@pytest.mark.parametrize("handed", [0, 1, 100])
def test_a_hash_is_the_same_however_much_was_handed_over(
    source: Path, monkeypatch: pytest.MonkeyPatch, handed: int
) -> None:
    monkeypatch.setattr(shard_hashes, "MAX_QUEUED", handed)
    monkeypatch.setattr(shard_hashes, "BLOCK", 777)
    with Checkpoint(source) as checkpoint:
        shard = checkpoint.shards[0]
        known = ShardHashes(checkpoint.shards[:1], downloaded=False)
        with known.watch([shard]) as watch:
            for begin in range(500, shard.size - 900, 1700):
                watch.read(shard, begin, shard.read_span(begin, begin + 900))
    assert known.digests == {shard.name: hashlib.sha256(shard.path.read_bytes()).hexdigest()}


def test_what_the_conversion_read_is_not_read_again_for_its_hash(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the hash is of the bytes that were converted, whatever the file holds by now."""
    monkeypatch.setattr(shard_hashes, "MAX_QUEUED", 10_000)
    spans = Spans(monkeypatch)
    convert(source, out)
    with Checkpoint(source) as checkpoint:
        heads = {
            shard.name: min(tensor.offset for tensor in shard.tensors.values())
            for shard in checkpoint.shards
        }
    assert spans.read == [(name, 0, head) for name, head in heads.items()]


@pytest.fixture
def hub(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_hub.FakeHub]:
    for name in ("HF_HUB_OFFLINE", "EDGESPPO_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with fake_hub.serve(source) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


@pytest.mark.usefixtures("hub")
def test_what_was_held_against_the_hubs_hash_is_not_hashed_again(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Shard, "read_span")
    convert(f"{REPOSITORY}@{REVISION}", out)
    assert stated(out) == true_hashes(source)


@pytest.mark.usefixtures("hub")
def test_where_the_hub_tells_no_sha256_it_is_computed(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_hub, "LARGE", (".model",))
    convert(f"{REPOSITORY}@{REVISION}", out)
    assert stated(out) == true_hashes(source)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


LEFT_OPEN = """
import pathlib, sys
from edgesppo_convert.source.checkpoint import Checkpoint
from edgesppo_convert.source.shard_hashes import ShardHashes
checkpoint = Checkpoint(pathlib.Path(sys.argv[1]))
watch = ShardHashes(checkpoint.shards, downloaded=False).watch(checkpoint.shards)
watch.__enter__()
raise KeyboardInterrupt
"""


def test_a_ctrl_c_before_the_shards_are_seen_through_ends_the_process(source: Path) -> None:
    """At the moment after the thread has started, before the `with` can stop it."""
    words = [sys.executable, "-c", LEFT_OPEN, str(source)]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert done.stderr.endswith(b"KeyboardInterrupt\n"), done.stderr
