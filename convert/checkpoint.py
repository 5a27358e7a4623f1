"""Owns a checkpoint folder: its config, and its tensors by name, complete and safe to read.

Refuses anything but safetensors, and any shard name that could lead out of the folder (a shard
may well be a symbolic link: the Hugging Face cache is made of them). Knows nothing of what the
tensors mean; that is the family's business.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path, PurePosixPath, PureWindowsPath

from edgesppo.errors import BadCheckpoint, ModelNotFound, UnsupportedCheckpoint
from edgesppo_convert.safetensors import Shard, Tensor
from edgesppo_convert.untrusted import JsonObject, is_there, read_json, show

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PARTS = frozenset((".safetensors", ".json", ".model", ".jinja"))
MAX_SHARDS = 1000


class Checkpoint:
    """A Hugging Face checkpoint folder, open for reading until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: list[Shard] = []
        self._open_shards = ExitStack()
        try:
            if not folder.is_dir():
                raise ModelNotFound(f"no checkpoint folder {folder}")
            self.config = read_json(folder / CONFIG)
            self.tensors = self._open_tensors()
        except OSError as error:
            self.close()
            raise BadCheckpoint(f"cannot read {folder}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every shard; the tensors cannot be read any more."""
        self._open_shards.close()

    def json(self, name: str) -> JsonObject | None:
        """A further JSON file of the folder, None where there is none."""
        path = self.folder / name
        return read_json(path) if is_there(path) else None

    def holds(self, path: Path) -> bool:
        """Whether this file is a part of the checkpoint, be it by a symbolic link."""
        parts = (entry for entry in self.folder.iterdir() if entry.suffix in PARTS)
        return any(entry.exists() and entry.samefile(path) for entry in parts)

    def _open_tensors(self) -> dict[str, Tensor]:
        if is_there(self.folder / SINGLE):
            return self._open_shard(SINGLE)
        if is_there(self.folder / INDEX):
            return self._open_indexed(read_json(self.folder / INDEX).object("weight_map"))
        if any(self.folder.glob("pytorch_model*.bin*")):
            raise UnsupportedCheckpoint(
                f"{self.folder} has its weights only as pytorch_model.bin, a pickle that could run"
                f" code when read; only safetensors are read: save it anew with"
                " save_pretrained(..., safe_serialization=True)"
            )
        raise BadCheckpoint(
            f"{self.folder} has neither {SINGLE} nor {INDEX}; is the download complete?"
        )

    def _open_shard(self, name: str) -> dict[str, Tensor]:
        shard = Shard(self.folder / name)
        self._open_shards.callback(shard.close)
        self.shards.append(shard)
        return shard.tensors

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
                        f"{self.folder / shard_name} holds tensor {show(name)}, which {INDEX}"
                        f" places in {show(shard_of.get(name, 'no shard'))}"
                    )
                tensors[name] = tensor
        lacking = next((name for name in shard_of if name not in tensors), None)
        if lacking is not None:
            raise BadCheckpoint(
                f"{self.folder / shard_of[lacking]} lacks tensor {show(lacking)}, which {INDEX}"
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
