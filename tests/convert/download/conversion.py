"""Conversions from the hub, and what they keep on the disk beside the output."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tests.support.checkpoints import Shape
from tests.support.fake_hub import REPOSITORY, REVISION
from tests.support.faulty import convert_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.system.fs import FileSystem

TINY = Shape(1, 32, 32, 1, 1, 32, 480, 256, 64)
SOURCE = f"{REPOSITORY}@{REVISION}"
FIRST, SECOND = (f"model-{number:05}-of-00002.safetensors" for number in (1, 2))
TENSORS = 13


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


def run(out: Path, files: FileSystem, *, keep: bool = False) -> int:
    """Convert with ggml's kernels, which need no self-check; the number of resumed tensors."""
    return convert_on(files, SOURCE, out, n_threads=1, kernels="ggml", keep=keep).resumed
