"""Owns a checkpoint folder: its config, and its tensors by name, complete and safe to read.

Refuses anything but safetensors, and any shard name that could lead out of the folder (a shard
may well be a symbolic link: the Hugging Face cache is made of them). Knows nothing of what the
tensors mean; that is the family's business.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint, ModelNotFound, UnsupportedCheckpoint
from edgesppo.hub.repository import REVISION
from edgesppo_convert.source.json_reader import (
    MAX_JSON,
    JsonObject,
    is_there,
    parse_json,
    read_bytes,
    show,
    unreadable,
)
from edgesppo_convert.source.safetensors import Shard, Tensor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# All but the weights that a conversion reads; not every checkpoint has each.
SMALL_FILES = (
    "README.md",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
MAX_SMALL = 64 << 20
PARTS = frozenset((".safetensors", ".json", ".model", ".jinja"))
MAX_SHARDS = 1000
BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Origin:
    """What a checkpoint is called and, where that is known, whose it is and which commit."""

    name: str
    owner: str | None = None
    revision: str | None = None


class Checkpoint:
    """A Hugging Face checkpoint folder, open for reading until it is closed."""

    _hint = "is the download complete?"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ModelNotFound(f"no checkpoint folder {folder}")
        self._folder = folder
        self._open(str(folder), _find_origin(folder))

    def _open(self, where: str, origin: Origin) -> None:
        self.where = where
        self.origin = origin
        self.shards: list[Shard] = []
        self._open_shards = ExitStack()
        try:
            self.config = parse_json(self.required(CONFIG, MAX_JSON), self.place(CONFIG))
            self.tensors = self._open_tensors()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every shard; the tensors cannot be read any more."""
        self._open_shards.close()

    def json(self, name: str) -> JsonObject | None:
        """A further JSON file of the checkpoint, None where there is none."""
        data = self.small(name, MAX_JSON)
        return None if data is None else parse_json(data, self.place(name))

    def small(self, name: str, limit: int = MAX_SMALL) -> bytes | None:
        """One of the small files, at most `limit` bytes; None where there is none."""
        path = self._folder / name
        return read_bytes(path, limit) if is_there(path) else None

    def required(self, name: str, limit: int) -> bytes:
        """One of the small files that no checkpoint can do without."""
        data = self.small(name, limit)
        if data is None:
            raise BadCheckpoint(f"{self.where} has no {name}; {self._hint}")
        return data

    def place(self, name: str) -> str:
        """What a message calls this file."""
        return str(self._folder / name)

    def holds(self, path: Path) -> bool:
        """Whether this file is a part of the checkpoint, be it by a symbolic link."""
        parts = (entry for entry in self._folder.iterdir() if entry.suffix in PARTS)
        return any(entry.exists() and entry.samefile(path) for entry in parts)

    def stored(self, tensor: Tensor) -> Iterator[bytes]:
        """The bytes of one tensor from its first to its last, a few at a time."""
        for at in range(0, tensor.nbytes, BLOCK):
            data = bytearray(min(BLOCK, tensor.nbytes - at))
            tensor.shard.read(tensor.offset + at, memoryview(data))
            yield bytes(data)

    @property
    def spare(self) -> int:
        """Bytes that it still needs beside the output for a while."""
        return 0

    def visits(self, needed: Collection[Shard]) -> Iterator[Collection[Shard]]:
        """The needed shards in groups that can be read at the same time; here, all at once."""
        yield needed

    def _names(self) -> list[str]:
        """Every file of the checkpoint, be it a symbolic link to nothing (a download cut off)."""
        try:
            return [path.name for path in self._folder.iterdir()]
        except OSError as error:
            raise unreadable(self._folder, error) from error

    def _open_tensors(self) -> dict[str, Tensor]:
        names = self._names()
        if SINGLE in names:
            return self._open_shard(SINGLE)
        if INDEX in names:
            index = parse_json(self.required(INDEX, MAX_JSON), self.place(INDEX))
            return self._open_indexed(index.object("weight_map"))
        if any(fnmatch(name, "pytorch_model*.bin*") for name in names):
            raise UnsupportedCheckpoint(
                f"{self.where} has its weights only as pytorch_model.bin, a pickle that could run"
                f" code when read; only safetensors are read: save it anew with"
                " save_pretrained(..., safe_serialization=True)"
            )
        raise BadCheckpoint(f"{self.where} has neither {SINGLE} nor {INDEX}; {self._hint}")

    def _open_shard(self, name: str) -> dict[str, Tensor]:
        shard = self._shard(name)
        self._open_shards.callback(shard.close)
        self.shards.append(shard)
        return shard.tensors

    def _shard(self, name: str) -> Shard:
        shard = Shard(self._folder / name)
        shard.sha256 = _known_sha256(shard.path)
        return shard

    def _open_indexed(self, weight_map: JsonObject) -> dict[str, Tensor]:
        shard_of = {name: _plain_name(weight_map, name) for name in weight_map}
        names = sorted(set(shard_of.values()))
        if not 0 < len(names) <= MAX_SHARDS:
            raise BadCheckpoint(f"{weight_map.where} names {len(names):,} shards")
        tensors: dict[str, Tensor] = {}
        for shard_name in names:
            for name, tensor in self._open_shard(shard_name).items():
                if shard_of.get(name) != shard_name:
                    raise BadCheckpoint(
                        f"{self.place(shard_name)} holds tensor {show(name)}, which {INDEX}"
                        f" places in {show(shard_of.get(name, 'no shard'))}"
                    )
                tensors[name] = tensor
        lacking = next((name for name in shard_of if name not in tensors), None)
        if lacking is not None:
            raise BadCheckpoint(
                f"{self.place(shard_of[lacking])} lacks tensor {show(lacking)}, which {INDEX}"
                " places there"
            )
        return tensors


def _plain_name(weight_map: JsonObject, tensor: str) -> str:
    """The shard's name, which must name a file in the folder itself on any system."""
    name = weight_map.text(tensor)
    plain = (
        name.endswith(".safetensors")
        and name.isprintable()
        and len(name) <= 255
        and PurePosixPath(name).name == name
        and PureWindowsPath(name).name == name
    )
    if not plain:
        weight_map.refuse(tensor, "the plain name of a .safetensors file in the same folder")
    return name


def _find_origin(folder: Path) -> Origin:
    """What the folder is called; in a cache, what its repository is called.

    That is `models--OWNER--NAME/snapshots/REVISION` in the Hugging Face cache, and
    `OWNER--NAME/REVISION` in ours. No owner and no name on the hub has two dashes.
    """
    folder = folder.absolute()
    ours = folder.parent.name.split("--")
    if len(ours) == 2 and all(ours) and REVISION.fullmatch(folder.name):
        return Origin(ours[1], ours[0], folder.name)
    kind, *parts = folder.parent.parent.name.split("--")
    if folder.parent.name != "snapshots" or kind != "models" or not parts:
        # A file name is bytes; the key in the output must be a text.
        return Origin(os.fsencode(folder.resolve().name).decode("utf-8", "replace"))
    if len(parts) == 2 and REVISION.fullmatch(folder.name):
        return Origin(parts[1], parts[0], folder.name)
    return Origin(parts[-1])


def _known_sha256(shard: Path) -> str | None:
    """In the Hugging Face cache, a shard links to a file whose name is its sha256 on the hub."""
    if not shard.is_symlink():
        return None
    blob = shard.resolve()
    fits = blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name)
    return blob.name if fits else None
