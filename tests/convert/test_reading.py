"""Reading a checkpoint's files: in full, concurrently, and from a failing disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import BadCheckpoint, SourceUnreadable
from edgesppo_convert.source import safetensors
from edgesppo_convert.source.checkpoint import Checkpoint
from edgesppo_convert.source.safetensors_header import MAX_HEADER
from tests.support.checkpoints import SMALL, write_checkpoint
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    with Checkpoint(write_checkpoint(tmp_path / "model", SMALL)) as checkpoint:
        yield checkpoint


def test_a_span_is_of_the_files_own_bytes_and_disturbs_no_reader(checkpoint: Checkpoint) -> None:
    shard, tensor = checkpoint.shards[0], checkpoint.tensors["model.norm.weight"]
    expected = b"".join(checkpoint.stream(tensor))
    stored = checkpoint.stream(tensor)
    begun = next(stored)
    assert shard.read_span(7, 10_000) == shard.path.read_bytes()[7:10_000]
    assert begun + b"".join(stored) == expected
    with pytest.raises(BadCheckpoint, match="is truncated"):
        shard.read_span(0, shard.size + 1)


def test_a_span_is_of_the_file_that_was_opened(checkpoint: Checkpoint) -> None:
    shard = checkpoint.shards[0]
    copy = shard.path.with_name("copy")
    copy.write_bytes(shard.path.read_bytes())
    copy.replace(shard.path)
    with pytest.raises(BadCheckpoint, match="was replaced while it was read"):
        shard.read_span(0, 8)


def test_a_disk_that_fails_is_no_fault_of_the_checkpoint(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    shard = checkpoint.shards[0]
    monkeypatch.setattr(safetensors.Shard, "_fill", fail)
    with pytest.raises(SourceUnreadable, match=f"cannot read .*: {os.strerror(errno.EIO)}"):
        shard.read(0, memoryview(bytearray(8)))
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(SourceUnreadable, match=f"cannot read .*: {os.strerror(errno.EIO)}"):
        shard.read_span(0, 8)
    with pytest.raises(SourceUnreadable, match=f"cannot read .*: {os.strerror(errno.EIO)}"):
        safetensors.Shard(shard.path)


READ = """
import resource, sys
from pathlib import Path
from edgesppo.errors import BadCheckpoint
from edgesppo_convert.source.safetensors import Shard

resource.setrlimit(resource.RLIMIT_AS, (180 << 20,) * 2)
try:
    Shard(Path(sys.argv[1]))
except BadCheckpoint as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is not limited so")
@pytest.mark.parametrize(
    ("length", "hostile"),
    [
        (28_000_000, b"{}"),
        (MAX_HEADER, b"{}"),
        (MAX_HEADER, b"[" * 900 + b"]" * 900),
        (MAX_HEADER, b'{"":{"":[]}}'),
    ],
)
def test_a_hostile_header_takes_no_more_than_a_little_memory(
    tmp_path: Path, length: int, hostile: bytes
) -> None:
    items = ((hostile + b",") * ((length - 30) // (len(hostile) + 1)))[:-1]
    header = b'{"__metadata__":{"a":[' + items + b"]}}"
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    words = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (
        "says that its header has" if length > MAX_HEADER else "expected a string"
    ) in done.stdout


@pytest.mark.parametrize("metadata", ["[]", '{"a": 1}', '{"a": {}}', '{"a": null}'])
def test_metadata_is_a_flat_map_of_texts(tmp_path: Path, metadata: str) -> None:
    header = f'{{"__metadata__": {metadata}}}'.encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(BadCheckpoint, match="expected a"):
        safetensors.Shard(path)
