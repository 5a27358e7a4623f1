"""Owns importance matrices: how much each column of a weight matters, as llama-imatrix measured.

Two forms are read, both little-endian, neither trusted:

    GGUF   tensors NAME.in_sum2 and NAME.counts, F32; keys imatrix.{datasets, chunk_count, ...}
           (read by the runtime's `gguf.reader`)
    .dat   entries i32 | per entry: length i32, name, calls i32, count i32, f32[count]
           | optional: chunks i32, length i32, name of the data set

The values are sums over calls and become means as in llama.cpp's `tools/quantize/quantize.cpp`.
Knows nothing of blocks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUFValueType, Keys

from edgesppo.errors import BadModelFile, ModelNotFound
from edgesppo.gguf import reader
from edgesppo_convert.gguf_format import KeyValue
from edgesppo_convert.source.json_reader import show

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from edgesppo.gguf.reader import TensorEntry
    from edgesppo_convert.gemma2.architecture import Weight

    Floats = NDArray[np.float32]

MAX_FILE = 64 << 20  # bytes; that of the 27B has 12 MB
MAX_NAME = 1 << 10
MAX_TEXT = 1 << 16
MAX_ENTRIES = 1 << 16
OUTPUT = "output.weight"  # where it is tied, llama.cpp has no use for it either
SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Importance:
    """The importance of the columns of each weight, and where it was measured."""

    name: str  # of the file
    values: Mapping[str, Floats]
    dataset: str
    chunks: int

    def check(self, weights: Iterable[Weight]) -> None:
        """Refuse one that was measured on a model of other shapes."""
        rows = {weight.name: weight.row for weight in weights if not weight.is_norm}
        for name, values in self.values.items():
            if name == OUTPUT:
                continue
            if name not in rows:
                raise BadModelFile(
                    f"{self.name} has importances for {show(name)}, which this model has not; it"
                    " was measured on another model"
                )
            if values.size != rows[name]:
                raise BadModelFile(
                    f"{self.name} has {values.size:,} importances for {name}, expected"
                    f" {rows[name]:,}, its columns; it was measured on another model"
                )
        if not rows.keys() & self.values.keys():
            raise BadModelFile(f"{self.name} has importances for no tensor of this model")

    @property
    def keys(self) -> list[KeyValue]:
        """What the file made with it says of it; names, but no folders."""
        u32, text = GGUFValueType.UINT32, GGUFValueType.STRING
        keys = [KeyValue("quantize.imatrix.file", text, self.name)]
        if self.dataset:
            keys.append(KeyValue("quantize.imatrix.dataset", text, _last_part(self.dataset)))
        keys.append(KeyValue("quantize.imatrix.entries_count", u32, len(self.values)))
        if 0 < self.chunks < 1 << 32:
            keys.append(KeyValue("quantize.imatrix.chunks_count", u32, self.chunks))
        return keys


def read_importance(path: Path) -> Importance:
    """The importance matrix in a file of either form."""
    try:
        if not path.exists():
            raise ModelNotFound(f"no importance matrix {path}")
        if not path.is_file():
            raise BadModelFile(f"{path} is not a file, expected an importance matrix")
        if path.stat().st_size > MAX_FILE:
            raise BadModelFile(
                f"{path} is longer than {MAX_FILE:,} bytes, the most that an importance matrix has"
            )
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        found = _read_gguf(path) if is_gguf else _read_dat(_Cursor(path, path.read_bytes()))
    except OSError as error:
        raise BadModelFile(f"cannot read {path}: {error.strerror or error}") from error
    if not found.values:
        raise _refusal(path, "it has no entries")
    for name, values in found.values.items():
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise _refusal(path, f"{show(name)} has importances that are negative or not finite")
    return found


def _refusal(path: Path, what: str) -> BadModelFile:
    return BadModelFile(f"{path} is no sound importance matrix: {what}")


def _name(path: Path) -> str:
    """A file's name is bytes; the key in the output must be a text."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def _last_part(path: str) -> str:
    """What stands after the last slash of either kind."""
    return PureWindowsPath(path).name[:127]  # as much as llama.cpp keeps


class _Cursor:
    """Reads the older form front to back; refuses to leave the data."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def bytes(self, length: int) -> bytes:
        if not 0 <= length <= len(self.data) - self.at:
            raise _refusal(self.path, f"it ends too early, at byte {len(self.data):,}")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self) -> int:
        return int.from_bytes(self.bytes(4), "little", signed=True)

    def count(self, most: int, what: str) -> int:
        value = self.number()
        if not 0 <= value <= most:
            raise _refusal(self.path, f"{what} is {value:,}, expected at most {most:,}")
        return value

    def text(self, most: int) -> str:
        try:
            return self.bytes(self.count(most, "the length of a text")).decode("utf-8")
        except UnicodeDecodeError:
            raise _refusal(self.path, f"a text before byte {self.at:,} is not UTF-8") from None

    def floats(self) -> Floats:
        count = self.count(MAX_FILE, "the number of values")
        return np.frombuffer(self.bytes(4 * count), "<f4").astype(np.float32)


def _read_dat(cursor: _Cursor) -> Importance:
    """The older form."""
    values: dict[str, Floats] = {}
    for _ in range(cursor.count(MAX_ENTRIES, "the number of entries")):
        name, calls, sums = cursor.text(MAX_NAME), cursor.number(), cursor.floats()
        if name in values:
            raise _refusal(cursor.path, f"{show(name)} stands twice")
        with np.errstate(invalid="ignore"):  # what is not finite is refused by the caller
            values[name] = sums / np.float32(calls) if calls > 0 else sums
    if cursor.at == len(cursor.data):
        return Importance(_name(cursor.path), values, "", 0)
    chunks = cursor.number()
    dataset = cursor.text(MAX_TEXT) if cursor.at < len(cursor.data) else ""
    return Importance(_name(cursor.path), values, dataset, chunks)


def _read_gguf(path: Path) -> Importance:
    """The form of today's llama-imatrix."""
    summary = reader.read(path)
    datasets, chunks = Keys.IMatrix.DATASETS, summary.keys.get(Keys.IMatrix.CHUNK_COUNT)
    if datasets not in summary.arrays or not isinstance(chunks, int):
        raise _refusal(path, f"it lacks {datasets} or {Keys.IMatrix.CHUNK_COUNT}")
    if summary.arrays[datasets].length > MAX_ENTRIES:
        raise _refusal(path, f"it names {summary.arrays[datasets].length:,} data sets")
    tensors = {tensor.name: tensor for tensor in summary.tensors}
    names = [tensor.removesuffix(SUMS) for tensor in tensors if tensor.endswith(SUMS)]
    names += [tensor.removesuffix(COUNTS) for tensor in tensors if tensor.endswith(COUNTS)]
    values = {
        name: _mean(path, name, *(tensors.get(name + kind) for kind in (SUMS, COUNTS)))
        for name in dict.fromkeys(names)
    }
    dataset = reader.read_array(summary, datasets)[:1]
    text = dataset[0] if dataset and isinstance(dataset[0], str) else ""
    return Importance(_name(path), values, text, chunks)


def _mean(path: Path, name: str, sums: TensorEntry | None, counts: TensorEntry | None) -> Floats:
    """Sums over counts; a matrix that was never used counts evenly."""
    if sums is None or counts is None or sums.n_bytes % counts.n_bytes:
        raise _refusal(path, f"the sums and counts of {show(name)} do not belong together")
    calls = _floats(path, counts)
    if not (np.isfinite(calls).all() and (calls >= 0).all()):
        raise _refusal(path, f"the counts of {show(name)} are negative or not finite")
    rounded = np.floor(calls.astype(np.float64) + 0.5).astype(np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = _floats(path, sums).reshape(calls.size, -1) / rounded
    return np.where(rounded > 0, means, np.float32(1)).ravel()


def _floats(path: Path, tensor: TensorEntry) -> Floats:
    if tensor.type != "F32":
        raise _refusal(path, f"{show(tensor.name)} is not F32")
    return np.fromfile(path, "<f4", tensor.n_bytes // 4, offset=tensor.offset).astype(np.float32)
