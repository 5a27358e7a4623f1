"""Open a checkpoint folder: its config, and its tensors by name, checked to be complete.

Only safetensors are read, and no shard whose name could lead out of the folder. A shard may be a
symbolic link, as all are in the Hugging Face cache.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint
from edgesppo.hub.repository import REVISION
from edgesppo.system import notices
from edgesppo.system.shell import shell_word
from edgesppo_convert.source.adapter import ADAPTER_WEIGHTS
from edgesppo_convert.source.folder_contents import (
    CONFIG,
    INDEX,
    SINGLE,
    missing,
    unfinished_download,
)
from edgesppo_convert.source.json_reader import (
    MAX_JSON,
    JsonObject,
    parse_json,
    show,
    unreadable,
)
from edgesppo_convert.source.safetensors import Shard, Tensor
from edgesppo_convert.source.small_files import SmallFiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

# What a conversion reads besides the weights; not every checkpoint has all of them.
SMALL_FILES = (
    "README.md",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
PARTS = frozenset((".safetensors", ".json", ".model", ".jinja"))
MAX_SHARDS = 1000
BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Origin:
    """The name of a checkpoint and, if known, its owner on the hub and its commit."""

    name: str
    owner: str | None = None
    revision: str | None = None


class Checkpoint(SmallFiles):
    """A checkpoint folder, open for reading; a context manager.

    `config` is its config.json, `tensors` every tensor by name, `shards` the files that hold them,
    `where` its name in messages. Raises BadCheckpoint, UnsupportedCheckpoint.
    """

    _hint = "is the download complete?"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open(str(folder), _find_origin(folder))

    def _open(self, where: str, origin: Origin) -> None:
        self.where = where
        self.origin = origin
        self.shards: list[Shard] = []
        self._open_shards = ExitStack()
        try:
            names = self._file_names()
            if CONFIG not in names:
                raise missing(where, names, CONFIG, self._folder_to_explain())
            self.config = parse_json(
                self.read_required(CONFIG, MAX_JSON), self.display_name(CONFIG)
            )
            self.tensors = self._open_tensors()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every shard; the tensors can no longer be read."""
        self._open_shards.close()

    def read_required(self, name: str, limit: int) -> bytes:
        """Read a small file of at most `limit` bytes; BadCheckpoint if it is missing."""
        data = self.read_small(name, limit)
        if data is None:
            raise BadCheckpoint(f"{self.where} has no {name}; {self._hint}")
        return data

    def contains_file(self, path: Path) -> bool:
        """Whether `path` is one of the checkpoint's files, or the target of a link to one."""
        parts = (entry for entry in self._folder.iterdir() if entry.suffix in PARTS)
        return any(entry.exists() and entry.samefile(path) for entry in parts)

    def stream(self, tensor: Tensor) -> Iterator[bytes]:
        """The bytes of a tensor in order, in blocks of at most BLOCK bytes."""
        for at in range(0, tensor.nbytes, BLOCK):
            data = bytearray(min(BLOCK, tensor.nbytes - at))
            tensor.shard.read(tensor.offset + at, memoryview(data))
            yield bytes(data)

    @property
    def extra_disk_space(self) -> int:
        """Bytes of disk that the checkpoint will take beside the output while it is converted."""
        return 0

    def shard_groups(self, needed: Collection[Shard]) -> Iterator[Collection[Shard]]:
        """Group the needed shards by what can be read at one time: in a folder, all of them."""
        yield needed

    def _file_names(self) -> list[str]:
        """Names of all files; includes dangling links, which a cut-off download leaves."""
        try:
            return [path.name for path in self._folder.iterdir()]
        except OSError as error:
            raise unreadable(self._folder, error) from error

    def _open_tensors(self) -> dict[str, Tensor]:
        names = self._file_names()
        if ADAPTER_WEIGHTS in names and (SINGLE in names or INDEX in names):
            notices.notify(
                f"{self.where} holds an adapter, too ({ADAPTER_WEIGHTS}), which is not merged; to"
                f" merge it: --adapter {shell_word(self.where)}"
            )
        if SINGLE in names:
            self._check_present([SINGLE])
            return self._open_shard(SINGLE)
        if INDEX in names:
            index = parse_json(self.read_required(INDEX, MAX_JSON), self.display_name(INDEX))
            return self._open_indexed(index.object("weight_map"))
        what = f"weights (neither {SINGLE} nor {INDEX})"
        raise missing(self.where, names, what, self._folder_to_explain())

    def _folder_to_explain(self) -> Path | None:
        """The folder, whose contents an error can explain; None if it is not on this machine."""
        return self._folder

    def _open_shard(self, name: str) -> dict[str, Tensor]:
        shard = self._load_shard(name)
        self._open_shards.callback(shard.close)
        self.shards.append(shard)
        return shard.tensors

    def _load_shard(self, name: str) -> Shard:
        shard = Shard(self._folder / name)
        shard.sha256 = _known_sha256(shard.path)
        return shard

    def _open_indexed(self, weight_map: JsonObject) -> dict[str, Tensor]:
        shard_of = {name: _shard_name(weight_map, name) for name in weight_map}
        names = sorted(set(shard_of.values()))
        if not 0 < len(names) <= MAX_SHARDS:
            raise BadCheckpoint(
                f"{weight_map.where} names {len(names):,} shards; expected 1 to {MAX_SHARDS:,}"
            )
        self._check_present(names)
        tensors: dict[str, Tensor] = {}
        for shard_name in names:
            for name, tensor in self._open_shard(shard_name).items():
                if shard_of.get(name) != shard_name:
                    raise BadCheckpoint(
                        f"{self.display_name(shard_name)} holds tensor {show(name)}, but {INDEX}"
                        f" says {show(shard_of.get(name, 'no shard'))}; download both again"
                    )
                tensors[name] = tensor
        missing = next((name for name in shard_of if name not in tensors), None)
        if missing is not None:
            raise BadCheckpoint(
                f"{self.display_name(shard_of[missing])} has no tensor {show(missing)}, but {INDEX}"
                " says it is there; download both again"
            )
        return tensors

    def _check_present(self, shards: list[str]) -> None:
        present = self._file_names()
        absent = [name for name in shards if name not in present]
        if absent:
            raise BadCheckpoint(
                f"{self.where}: {len(absent)} of {len(shards)} shards are missing, {absent[0]}"
                f"{' first' if len(absent) > 1 else ''}; {self._hint} Get what is missing with"
                " the program that you downloaded it with, or: edgesppo pull OWNER/NAME"
            )
        if (mark := unfinished_download(shards, present)) is not None:
            raise BadCheckpoint(
                f"{self.where}: {mark} says that the download of the file beside it has not"
                " finished; finish it, or remove that mark if the file is whole"
            )


def _shard_name(weight_map: JsonObject, tensor: str) -> str:
    """The name of a tensor's shard; BadCheckpoint unless it is a plain file name on any system."""
    name = weight_map.text(tensor)
    is_plain = (
        name.endswith(".safetensors")
        and name.isprintable()
        and len(name) <= 255
        and PurePosixPath(name).name == name
        and PureWindowsPath(name).name == name
    )
    if not is_plain:
        weight_map.refuse(tensor, "the name of a .safetensors file in the same folder")
    return name


def _find_origin(folder: Path) -> Origin:
    """The origin of a folder: its repository if it lies in a cache, else only its own name.

    That is `models--OWNER--NAME/snapshots/REVISION` in the Hugging Face cache, and
    `OWNER--NAME/REVISION` in edgesppo's. No owner or name on the hub contains two dashes in a row.
    """
    folder = folder.absolute()
    names = folder.parent.name.split("--")
    if len(names) == 2 and all(names) and REVISION.fullmatch(folder.name):
        return Origin(names[1], names[0], folder.name)
    kind, *parts = folder.parent.parent.name.split("--")
    if folder.parent.name != "snapshots" or kind != "models" or not parts:
        # A file name is bytes; the key in the output must be valid UTF-8.
        return Origin(os.fsencode(folder.resolve().name).decode("utf-8", "replace"))
    if len(parts) == 2 and REVISION.fullmatch(folder.name):
        return Origin(parts[1], parts[0], folder.name)
    return Origin(parts[-1])


def _known_sha256(shard: Path) -> str | None:
    """The sha256 of a shard in the Hugging Face cache, where it links to a file of that name."""
    if not shard.is_symlink():
        return None
    blob = shard.resolve()
    is_hash = blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name)
    return blob.name if is_hash else None
