"""Open a PEFT adapter: a folder with adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import (
    BadCheckpoint,
    EdgesppoError,
    ModelNotFound,
    UnsupportedCheckpoint,
    UsageError,
)
from edgesppo.system import validate
from edgesppo.system.shell import shell_word
from edgesppo_convert.source.json_reader import (
    MAX_JSON,
    kind_of,
    name_exists,
    parse_json,
    read_bytes,
    unreadable,
)
from edgesppo_convert.source.safetensors import Shard
from edgesppo_convert.source.small_files import SmallFiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"
MLX_WEIGHTS = "adapters.safetensors"


class Adapter(SmallFiles):
    """An adapter, open for reading, and the weight that it is to be merged with."""

    def __init__(self, folder: Path, weight: float) -> None:
        self._folder = folder
        self.weight = weight
        self.where = str(folder)
        # A file name is bytes; what is written into the output must be valid UTF-8.
        self.name = os.fsencode(folder.resolve().name).decode("utf-8", "replace")
        _check_folder(folder)
        config = read_bytes(folder / ADAPTER_CONFIG, MAX_JSON)
        self.config = parse_json(config, self.display_name(ADAPTER_CONFIG))
        self.shard = Shard(folder / ADAPTER_WEIGHTS)
        self._state = self.shard.identity()
        # The name and sha256 of its files.
        self.digests = (
            (ADAPTER_CONFIG, hashlib.sha256(config).hexdigest()),
            (ADAPTER_WEIGHTS, self._hash_weights()),
        )

    @property
    def label(self) -> str:
        """Its name, with the weight that it is merged with unless that is 1."""
        return self.name if self.weight == 1 else f"{self.name}={self.weight!r}"

    def close(self) -> None:
        """Close the file of its tensors, which can no longer be read."""
        self.shard.close()

    def contains_file(self, path: Path) -> bool:
        """Whether `path` is one of the two files of the adapter, or the target of a link to one."""
        files = (self._folder / ADAPTER_CONFIG, self._folder / ADAPTER_WEIGHTS)
        return any(file.samefile(path) for file in files)

    def check_unchanged(self) -> None:
        """Raise BadCheckpoint if the file was written to since it was opened."""
        if self.shard.identity() != self._state:
            raise BadCheckpoint(
                f"the adapter has changed: {self.shard.path} was written to while it was read; run"
                " the same command again"
            )

    def _hash_weights(self) -> str:
        hasher = hashlib.sha256()
        for begin in range(0, self.shard.size, 1 << 20):
            hasher.update(self.shard.read_span(begin, min(begin + (1 << 20), self.shard.size)))
        return hasher.hexdigest()


@contextmanager
def open_adapters(named: Sequence[str | Path]) -> Iterator[list[Adapter]]:
    """Open the adapters that a caller named, each as DIR or DIR=WEIGHT; closes them at the end."""
    validate.texts("adapters", named)
    with ExitStack() as opened:
        adapters = []
        for text in named:
            try:
                adapter = Adapter(*_parse(text))
            except OSError as error:  # of a name that no file can have
                raise unreadable(Path(text), error) from error
            opened.callback(adapter.close)
            adapters.append(adapter)
        yield adapters


def _parse(text: str | Path) -> tuple[Path, float]:
    """The folder and the weight in DIR or DIR=WEIGHT; 1 without a weight."""
    folder, equals, number = str(text).rpartition("=")
    if not equals or Path(text).exists():
        return Path(text), 1.0
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight) or not folder:
        raise UsageError(
            f"the adapter is {str(text)!r}, and there is no such folder; expected DIR or"
            " DIR=WEIGHT with a number, such as DIR=0.5"
        )
    return Path(folder), weight


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise _not_a_folder(folder)
    if not name_exists(folder / ADAPTER_CONFIG):
        inner = next((path.parent for path in sorted(folder.glob(f"*/{ADAPTER_CONFIG}"))), None)
        advice = (
            "expected a folder that peft's save_pretrained wrote"
            if inner is None
            else f"give the folder inside of it: --adapter {shell_word(str(inner))}"
        )
        raise BadCheckpoint(f"{folder} has no {ADAPTER_CONFIG}, so it is not an adapter; {advice}")
    if name_exists(folder / ADAPTER_WEIGHTS):
        return
    if name_exists(folder / ADAPTER_PICKLE):
        raise UnsupportedCheckpoint(
            f"{folder} has its weights only as {ADAPTER_PICKLE}, a pickle, which can run code when"
            " it is read; save the adapter again with save_pretrained(..., safe_serialization=True)"
        )
    if name_exists(folder / MLX_WEIGHTS):
        raise UnsupportedCheckpoint(
            f"{folder} is an adapter of MLX ({MLX_WEIGHTS}), expected one of PEFT; fuse it, then"
            f" convert OUT: mlx_lm.fuse --model BASE --adapter-path {shell_word(str(folder))}"
            " --save-path OUT"
        )
    raise BadCheckpoint(f"{folder} has no {ADAPTER_WEIGHTS}; copy it from where it was trained")


def _not_a_folder(path: Path) -> EdgesppoError:
    """The error for an adapter that is no folder: what was found, and what to type instead."""
    expected = f"expected a folder with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"
    if not path.exists():
        return ModelNotFound(f"there is no adapter folder {path}; {expected}")
    if path.suffix == ".gguf":
        return UnsupportedCheckpoint(
            f"{path} is a GGUF file; {expected}, from which it was made: it is merged before the"
            " model is quantised"
        )
    return UnsupportedCheckpoint(
        f"{path} is {kind_of(path)}; {expected}"
        + (f": --adapter {shell_word(str(path.parent))}" if path.is_file() else "")
    )
