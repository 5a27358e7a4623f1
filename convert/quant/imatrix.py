"""Read importance matrices: how much each column of a weight matters, measured by llama-imatrix.

There are two formats, both little-endian; neither is trusted:

    GGUF   tensors NAME.in_sum2 and NAME.counts, F32; keys imatrix.{datasets, chunk_count, ...}
           (read by `edgesppo.gguf.reader`)
    .dat   entries i32 | per entry: length i32, name, calls i32, count i32, f32[count]
           | optional: chunks i32, length i32, name of the data set

The values are sums over calls and become means as in llama.cpp's `tools/quantize/quantize.cpp`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUFValueType, Keys

from edgesppo.errors import BadModelFile, ModelNotFound
from edgesppo.gguf import arrays, reader
from edgesppo_convert.gguf_format import KeyValue
from edgesppo_convert.source.json_reader import show

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from edgesppo.gguf.reader import TensorEntry
    from edgesppo_convert.gemma2.architecture import Weight

    Floats = NDArray[np.float32]

MAX_FILE = 64 << 20  # bytes; the 27B's has 12 MB
MAX_NAME = 1 << 10
MAX_TEXT = 1 << 16
MAX_ENTRIES = 1 << 16
OUTPUT = "output.weight"  # ignored, as by llama.cpp, where the output is tied
SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Importance:
    """The importance of the columns of each weight, and what it was measured on."""

    name: str  # of the file
    values: Mapping[str, Floats]  # tensor name -> one value per column
    dataset: str  # empty if unknown
    chunks: int  # of the data set; 0 if unknown

    def check(self, weights: Iterable[Weight]) -> None:
        """Refuse a matrix that was measured on a model of other shapes."""
        rows = {weight.name: weight.row for weight in weights if not weight.is_norm}
        for name, values in self.values.items():
            if name == OUTPUT:
                continue
            if name not in rows:
                raise BadModelFile(
                    f"{self.name} has importances for {show(name)}, which this model does not have;"
                    " it was measured on another model"
                )
            if values.size != rows[name]:
                raise BadModelFile(
                    f"{self.name} has {values.size:,} importances for {name}; expected"
                    f" {rows[name]:,}, one per column; it was measured on another model"
                )
        if not rows.keys() & self.values.keys():
            raise BadModelFile(
                f"{self.name} has no importances for any tensor of this model; it was measured on"
                " another model"
            )

    @property
    def keys(self) -> list[KeyValue]:
        """The GGUF keys that describe the matrix; they hold file names, but no folders."""
        u32, text = GGUFValueType.UINT32, GGUFValueType.STRING
        keys = [KeyValue("quantize.imatrix.file", text, self.name)]
        if self.dataset:
            keys.append(KeyValue("quantize.imatrix.dataset", text, _base_name(self.dataset)))
        keys.append(KeyValue("quantize.imatrix.entries_count", u32, len(self.values)))
        if 0 < self.chunks < 1 << 32:
            keys.append(KeyValue("quantize.imatrix.chunks_count", u32, self.chunks))
        return keys


def read_importance(path: Path) -> Importance:
    """Read an importance matrix of either format; BadModelFile, ModelNotFound."""
    try:
        if not path.exists():
            raise ModelNotFound(f"there is no importance matrix {path}")
        if not path.is_file():
            raise BadModelFile(f"{path} is not a file; expected an importance matrix")
        if path.stat().st_size > MAX_FILE:
            raise BadModelFile(
                f"{path} is longer than {MAX_FILE:,} bytes, the most that is read; is it an"
                " importance matrix?"
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
            raise _refusal(path, f"it has negative or non-finite importances for {show(name)}")
    return found


def _refusal(path: Path, fault: str) -> BadModelFile:
    return BadModelFile(f"{path} is not a valid importance matrix: {fault}")


def _name(path: Path) -> str:
    """The file's name as valid UTF-8, for a key of the output: on disk it may be any bytes."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def _base_name(path: str) -> str:
    """The part after the last slash or backslash."""
    return PureWindowsPath(path).name[:127]  # llama.cpp keeps as much


class _Cursor:
    """Reads the older format front to back; refuses to read beyond its end."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def bytes(self, length: int) -> bytes:
        if not 0 <= length <= len(self.data) - self.at:
            raise _refusal(self.path, f"it is truncated: it ends at byte {len(self.data):,}")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self) -> int:
        return int.from_bytes(self.bytes(4), "little", signed=True)

    def count(self, maximum: int, what: str) -> int:
        value = self.number()
        if not 0 <= value <= maximum:
            raise _refusal(self.path, f"{what} is {value:,}; expected 0 to {maximum:,}")
        return value

    def text(self, maximum: int) -> str:
        try:
            return self.bytes(self.count(maximum, "the length of a string")).decode("utf-8")
        except UnicodeDecodeError:
            raise _refusal(self.path, f"the string before byte {self.at:,} is not UTF-8") from None

    def floats(self) -> Floats:
        count = self.count(MAX_FILE, "the number of values")
        return np.frombuffer(self.bytes(4 * count), "<f4").astype(np.float32)


def _read_dat(cursor: _Cursor) -> Importance:
    """Read the older format, .dat."""
    values: dict[str, Floats] = {}
    for _ in range(cursor.count(MAX_ENTRIES, "the number of entries")):
        name, calls, sums = cursor.text(MAX_NAME), cursor.number(), cursor.floats()
        if name in values:
            raise _refusal(cursor.path, f"{show(name)} appears twice")
        with np.errstate(invalid="ignore"):  # the caller refuses what is not finite
            values[name] = sums / np.float32(calls) if calls > 0 else sums
    if cursor.at == len(cursor.data):
        return Importance(_name(cursor.path), values, "", 0)
    chunks = cursor.number()
    dataset = cursor.text(MAX_TEXT) if cursor.at < len(cursor.data) else ""
    return Importance(_name(cursor.path), values, dataset, chunks)


def _read_gguf(path: Path) -> Importance:
    """Read the GGUF that llama-imatrix writes today."""
    summary = reader.read(path)
    datasets, chunks = Keys.IMatrix.DATASETS, summary.keys.get(Keys.IMatrix.CHUNK_COUNT)
    if datasets not in summary.arrays or not isinstance(chunks, int):
        raise _refusal(path, f"it has no {datasets} or no {Keys.IMatrix.CHUNK_COUNT}")
    if summary.arrays[datasets].length > MAX_ENTRIES:
        raise _refusal(
            path,
            f"it names {summary.arrays[datasets].length:,} data sets;"
            f" expected at most {MAX_ENTRIES:,}",
        )
    tensors = {tensor.name: tensor for tensor in summary.tensors}
    names = [tensor.removesuffix(SUMS) for tensor in tensors if tensor.endswith(SUMS)]
    names += [tensor.removesuffix(COUNTS) for tensor in tensors if tensor.endswith(COUNTS)]
    values = {
        name: _mean(path, name, *(tensors.get(name + kind) for kind in (SUMS, COUNTS)))
        for name in dict.fromkeys(names)
    }
    dataset = arrays.read_array(summary, datasets)[:1]
    text = dataset[0] if dataset and isinstance(dataset[0], str) else ""
    return Importance(_name(path), values, text, chunks)


def _mean(path: Path, name: str, sums: TensorEntry | None, counts: TensorEntry | None) -> Floats:
    """Sums divided by counts; 1 for every column of a matrix that was never used."""
    if sums is None or counts is None or sums.n_bytes % counts.n_bytes:
        raise _refusal(path, f"the sums and counts of {show(name)} do not match")
    calls = _floats(path, counts)
    if not (np.isfinite(calls).all() and (calls >= 0).all()):
        raise _refusal(path, f"the counts of {show(name)} are negative or not finite")
    rounded = np.floor(calls.astype(np.float64) + 0.5).astype(np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = _floats(path, sums).reshape(calls.size, -1) / rounded
    return np.where(rounded > 0, means, np.float32(1)).ravel()


def _floats(path: Path, tensor: TensorEntry) -> Floats:
    if tensor.type != "F32":
        raise _refusal(path, f"{show(tensor.name)} has the type {tensor.type}; expected F32")
    return np.fromfile(path, "<f4", tensor.n_bytes // 4, offset=tensor.offset).astype(np.float32)
