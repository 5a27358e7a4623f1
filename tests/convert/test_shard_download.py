"""What a conversion from the hub leaves on the disk and finds there: nothing is lost or left."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import BadCheckpoint, DownloadError, OutputError, SourceUnreadable
from edgesppo.hub import client as hub_module
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import parse_repository
from edgesppo.system.fs import FileSystem
from edgesppo_convert import convert, pipeline
from edgesppo_convert.output import output
from edgesppo_convert.source.hub_checkpoint import RemoteCheckpoint
from edgesppo_convert.source.safetensors import Shard
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.fake_hub import REPOSITORY, REVISION, Direct, FakeHub, serve
from tests.support.faulty import Counting, Faulty, Short
from tests.support.paths import ROOT
from tests.support.sweeps import LONG, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

TINY = Shape(1, 32, 32, 1, 1, 32, 480, 256, 64)
SOURCE = f"{REPOSITORY}@{REVISION}"
FIRST, SECOND = (f"model-{number:05}-of-00002.safetensors" for number in (1, 2))
TENSORS = 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / "files", TINY, shards=2)
    for name in ("generation_config.json", "tokenizer_config.json"):  # fewer files make it faster
        (folder / name).unlink()
    return folder


@pytest.fixture(autouse=True)
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_HUB_OFFLINE", "EDGESPPO_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(output, "RECORD_EVERY", 1)
    monkeypatch.setattr(hub_module.HubClient.__init__, "__defaults__", (lambda _: None,))
    with serve(folder) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "model.gguf"
    with serve(folder) as fake, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", fake.url)
        patch.setenv("NO_PROXY", "127.0.0.1")
        convert(SOURCE, out)
    return out.read_bytes()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def names(out: Path) -> set[str]:
    return {path.name for path in out.parent.iterdir()}


def beside(out: Path, data: bytes) -> Path:
    """The path of a shard with these bytes while it is downloaded and used."""
    return out.with_name(f".{out.name}.edgesppo-shard-{hashlib.sha256(data).hexdigest()[:16]}")


def kept(out: Path) -> Path:
    return out.with_name(out.name + ".checkpoint")


def stop_at(shard: str, share: float = 0.5) -> Callable[[str, int, int], None]:
    """A callback that raises KeyboardInterrupt when this share of a shard is downloaded."""

    def fetched(name: str, done: int, total: int) -> None:
        if name == shard and done >= share * total:
            raise KeyboardInterrupt

    return fetched


def is_whole_checkpoint(place: Path, folder: Path) -> bool:
    found = {path.name: path.read_bytes() for path in place.iterdir()}
    return found == {path.name: path.read_bytes() for path in folder.iterdir()}


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

    convert(SOURCE, out, fetched=fetched)
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
        pipeline.convert(SOURCE, out, files=Recording())
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
        convert(SOURCE, out, fetched=stop_at(shard, 0.4))
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
        convert(SOURCE, out, keep=True, fetched=stop_at(SECOND))
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
        convert(SOURCE, out, keep=keep, fetched=stop_at(FIRST, 0.4))
    out.with_name(".model.gguf.edgesppo-shard-fedcba9876543210").write_bytes(b"of another one")
    convert(SOURCE, out, keep=keep)
    assert out.read_bytes() == whole
    assert names(out) == {out.name, *([kept(out).name] if keep else [])}


def test_ctrl_c_before_anything_was_fetched_promises_nothing(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        convert(SOURCE, out, fetched=stop_at("config.json", 0))
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
        pipeline.convert(SOURCE, out, keep=keep, files=Stopping())
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
        convert(SOURCE, out, fetched=stop_at(SECOND))
    assert any("shard" in name for name in names(out))
    convert(hub.folder, out)
    assert names(out) == {out.name}


def test_a_wrong_shard_is_fetched_once_more(hub: FakeHub, out: Path, whole: bytes) -> None:
    hub.faults[SECOND] = ["", "wrong"]
    convert(SOURCE, out)
    assert out.read_bytes() == whole


def test_a_shard_that_stays_wrong_is_refused_with_both_hashes(hub: FakeHub, out: Path) -> None:
    hub.faults[SECOND] = ["", "wrong", "wrong"]
    data = (hub.folder / SECOND).read_bytes()
    wrong, right = (hashlib.sha256(d).hexdigest() for d in (data[:-1] + b"?", data))
    with pytest.raises(DownloadError, match=f"{wrong} and then {wrong}, but the hub says {right}"):
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
        pipeline.convert(SOURCE, out, files=Rotten())
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

    convert(SOURCE, out, fetched=fetched)
    assert "tokenizer.model" in seen
    assert out.read_bytes() == whole


def test_ctrl_c_during_a_download_is_resumed(hub: FakeHub, out: Path, whole: bytes) -> None:
    hub.faults[SECOND] = ["", "cut"]
    with pytest.raises(KeyboardInterrupt, match="tensors are kept in"):
        convert(SOURCE, out, fetched=stop_at(SECOND, 0.4))
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


def run(out: Path, files: FileSystem, *, keep: bool = False) -> int:
    """Convert with ggml's kernels, which need no self-check; the number of resumed tensors."""
    options: dict[str, Any] = {"threads": 1, "kernels": "ggml", "files": files, "keep": keep}
    return pipeline.convert(SOURCE, out, **options).resumed


def operations(out: Path, *, keep: bool = False) -> list[str]:
    counting = Counting()
    run(out, counting, keep=keep)
    clear(out)
    return counting.done


def clear(out: Path) -> None:
    for path in (*kept(out).glob("*"), *(path for path in out.parent.iterdir() if path.is_file())):
        path.unlink()
    with suppress(FileNotFoundError):
        kept(out).rmdir()


def state(out: Path) -> frozenset[tuple[str, bytes]]:
    """Everything on the disk that a later run can find."""
    found = (path for path in out.parent.rglob("*") if path.is_file())
    return frozenset((str(path.relative_to(out.parent)), path.read_bytes()) for path in found)


@pytest.fixture
def direct(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the network by a local opener, since it is not under test here."""
    opener = Direct(folder)
    monkeypatch.setattr(hub_module.urllib.request, "build_opener", lambda *_: opener)
    monkeypatch.setenv("HF_ENDPOINT", opener.hub.url)


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize(
    ("errors", "keep"),
    [((errno.ENOSPC, errno.EIO, KeyboardInterrupt()), False), ((errno.EIO,), True)],
)
def test_after_a_fault_at_any_operation_the_next_run_gives_the_same_file(
    folder: Path, out: Path, whole: bytes, errors: tuple[int | BaseException, ...], keep: bool
) -> None:
    done = operations(out, keep=keep)
    resumed_states = set()  # each state of the disk needs only one run
    for error, number in product(errors, places(done)):
        with suppress(OutputError, KeyboardInterrupt):
            run(out, Faulty(number, error), keep=keep)
        if not out.exists():
            if (left := state(out)) in resumed_states:
                clear(out)
                continue
            resumed_states.add(left)
            run(out, Counting(), keep=keep)
            assert names(out) == {out.name, *([kept(out).name] if keep else [])}
            assert not keep or is_whole_checkpoint(kept(out), folder)
        assert out.read_bytes() == whole, f"operation {number}, {done[number - 1]}"
        clear(out)


def test_short_reads_and_writes_lose_nothing(folder: Path, out: Path, whole: bytes) -> None:
    data = (folder / SECOND).read_bytes()
    beside(out, data).write_bytes(data[:5000])
    run(out, Short(), keep=True)
    assert out.read_bytes() == whole
    assert is_whole_checkpoint(kept(out), folder)


KILLED = """
import os, pathlib, signal, sys, urllib.request
from edgesppo_convert import pipeline
from edgesppo_convert.output import output
from tests.support.faulty import Counting
from tests.support.fake_hub import Direct

source, out = sys.argv[1:3]
output.RECORD_EVERY = 1
hub = Direct(pathlib.Path(sys.argv.pop(3)))
urllib.request.build_opener = lambda *_: hub
options = {"threads": 1, "kernels": "ggml"}
pipeline.convert(source, out, **options)  # loads what every victim needs
os.unlink(out)
victims = {}
numbers = list(map(int, sys.argv[3:]))
while numbers or victims:
    while numbers and len(victims) < 3:  # each waits now and then
        number = numbers.pop()
        victim = os.fork()
        if victim == 0:
            def kill(at, name):
                if at == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            pipeline.convert(source, out + str(number), files=Counting(kill), **options)
            os._exit(7)
        victims[victim] = number
    victim, end = os.wait()
    if end != signal.SIGKILL:
        sys.exit(f"operation {victims[victim]} was not reached")
    del victims[victim]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each victim is a fork of one process")
@pytest.mark.usefixtures("direct")
def test_killed_at_any_operation_the_next_run_gives_the_same_file(
    folder: Path, out: Path, whole: bytes
) -> None:
    done = operations(out)
    numbers = places(done)
    words = [sys.executable, "-c", KILLED, SOURCE, str(out), str(folder), *map(str, numbers)]
    subprocess.run(words, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    resumed = []
    for number in numbers:
        victim = out.with_name(out.name + str(number))
        if not victim.exists():
            resumed.append(run(victim, Counting()))
        else:
            with pytest.raises(OutputError, match="exists already; use --force"):
                run(victim, Counting())
        assert victim.read_bytes() == whole, f"operation {number}, {done[number - 1]}"
    assert resumed == sorted(resumed)
    every = {*range(TENSORS + 1)}
    assert (every if LONG else {0, TENSORS}) <= {*resumed} <= every
    assert names(out) == {out.name + str(number) for number in numbers}
