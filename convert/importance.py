"""Owns importance matrices: how much each column of a weight matters, as llama-imatrix measured.

Two forms are read, both little-endian, neither trusted:

    GGUF   tensors NAME.in_sum2 and NAME.counts, F32; keys imatrix.{datasets, chunk_count, ...}
    .dat   entries i32 | per entry: length i32, name, calls i32, count i32, f32[count]
           | optional: chunks i32, length i32, name of the data set

The values are sums over calls and become means as in llama.cpp's `tools/quantize/quantize.cpp`.
Knows nothing of blocks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGUFValueType, Keys

from edgesppo.errors import BadModelFile, ModelNotFound
from edgesppo_convert.gguf_file import KeyValue
from edgesppo_convert.untrusted import show

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from edgesppo_convert.gemma2 import Weight

    Floats = NDArray[np.float32]

MAX_FILE = 1 << 30
MAX_NAME = 1 << 10
MAX_TEXT = 1 << 16
MAX_COUNT = 1 << 20  # keys, tensors, entries, items of a list
OUTPUT = "output.weight"  # where it is tied, llama.cpp has no use for it either
F32 = 0
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


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
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise ModelNotFound(f"no importance matrix {path}") from None
    except OSError as error:
        raise BadModelFile(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > MAX_FILE:
        raise BadModelFile(f"{path} is longer than {MAX_FILE:,} bytes, the most that makes sense")
    cursor = _Cursor(path, data)
    found = _read_gguf(cursor) if data.startswith(b"GGUF") else _read_dat(cursor)
    if not found.values:
        raise cursor.refusal("it has no entries")
    for name, values in found.values.items():
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise cursor.refusal(f"{show(name)} has importances that are negative or not finite")
    return found


def _last_part(path: str) -> str:
    """What stands after the last slash of either kind."""
    return PureWindowsPath(path).name[:127]  # as much as llama.cpp keeps


class _Cursor:
    """Reads front to back; refuses to leave the data."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def refusal(self, what: str) -> BadModelFile:
        return BadModelFile(f"{self.path} is no sound importance matrix: {what}")

    def bytes(self, length: int) -> bytes:
        if not 0 <= length <= len(self.data) - self.at:
            raise self.refusal(f"it ends too early, at byte {len(self.data):,}")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.bytes(struct.calcsize("<" + form)))[0]

    def count(self, form: str, most: int, what: str) -> int:
        value = int(self.number(form))
        if not 0 <= value <= most:
            raise self.refusal(f"{what} is {value:,}, expected at most {most:,}")
        return value

    def text(self, form: str, most: int) -> str:
        try:
            return self.bytes(self.count(form, most, "the length of a text")).decode("utf-8")
        except UnicodeDecodeError:
            raise self.refusal(f"a text before byte {self.at:,} is not UTF-8") from None

    def floats(self, count: int) -> Floats:
        return np.frombuffer(self.bytes(4 * count), "<f4").astype(np.float32)


def _read_dat(cursor: _Cursor) -> Importance:
    """The older form."""
    values: dict[str, Floats] = {}
    for _ in range(cursor.count("i", MAX_COUNT, "the number of entries")):
        name = cursor.text("i", MAX_NAME)
        calls = cursor.number("i")
        sums = cursor.floats(cursor.count("i", MAX_FILE, "the number of values"))
        if name in values:
            raise cursor.refusal(f"{show(name)} stands twice")
        with np.errstate(invalid="ignore"):  # what is not finite is refused by the caller
            values[name] = sums / np.float32(calls) if calls > 0 else sums
    if cursor.at == len(cursor.data):
        return Importance(cursor.path.name, values, "", 0)
    chunks = cursor.number("i")
    dataset = cursor.text("i", MAX_TEXT) if cursor.at < len(cursor.data) else ""
    return Importance(cursor.path.name, values, dataset, chunks)


def _read_gguf(cursor: _Cursor) -> Importance:
    """The form of today's llama-imatrix."""
    cursor.bytes(4)
    if cursor.number("I") not in (2, 3):
        raise cursor.refusal("its GGUF version is not 2 or 3")
    tensors = cursor.count("Q", MAX_COUNT, "the number of tensors")
    keys = dict(_key(cursor) for _ in range(cursor.count("Q", MAX_COUNT, "the number of keys")))
    datasets = keys.get(Keys.IMatrix.DATASETS)
    chunks = keys.get(Keys.IMatrix.CHUNK_COUNT)
    if not isinstance(datasets, list) or not isinstance(chunks, int):
        raise cursor.refusal(f"it lacks {Keys.IMatrix.DATASETS} or {Keys.IMatrix.CHUNK_COUNT}")
    alignment = keys.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment not in (1 << n for n in range(3, 17)):
        raise cursor.refusal(f"its alignment is {show(alignment)}")
    spans = [_info(cursor) for _ in range(tensors)]
    cursor.at = -(-cursor.at // alignment) * alignment
    found = _tensors(cursor, spans)
    names = dict.fromkeys(name.rpartition(".")[0] for name in found)
    values = {name: _mean(cursor, name, found) for name in names}
    dataset = datasets[0] if datasets and isinstance(datasets[0], str) else ""
    return Importance(cursor.path.name, values, dataset, chunks)


def _key(cursor: _Cursor) -> tuple[str, object]:
    name, kind = cursor.text("Q", MAX_NAME), cursor.number("I")
    if kind != GGUFValueType.ARRAY:
        return name, _value(cursor, kind)
    kind = cursor.number("I")
    count = cursor.count("Q", MAX_COUNT, f"the length of {show(name)}")
    return name, [_value(cursor, kind) for _ in range(count)]


def _value(cursor: _Cursor, kind: int) -> object:
    if kind == GGUFValueType.STRING:
        return cursor.text("Q", MAX_TEXT)
    if kind not in SCALARS:
        raise cursor.refusal(f"a value is of the unknown type {kind}")
    return cursor.number(SCALARS[kind])


def _info(cursor: _Cursor) -> tuple[str, int, int]:
    """Name, number of values, and where they begin within the data."""
    name = cursor.text("Q", MAX_NAME)
    sizes = [cursor.count("Q", MAX_FILE, f"a size of {show(name)}") for _ in range(_sizes(cursor))]
    if cursor.number("I") != F32:
        raise cursor.refusal(f"{show(name)} is not F32")
    return name, prod(sizes), cursor.count("Q", MAX_FILE, f"the offset of {show(name)}")


def _sizes(cursor: _Cursor) -> int:
    return cursor.count("I", 4, "the number of a tensor's sizes")


def _tensors(cursor: _Cursor, spans: Iterable[tuple[str, int, int]]) -> dict[str, Floats]:
    start, total = cursor.at, 0
    found: dict[str, Floats] = {}
    for name, count, offset in spans:
        if name in found:
            raise cursor.refusal(f"{show(name)} stands twice")
        total += 4 * count
        if total > len(cursor.data):
            raise cursor.refusal("its tensors overlap, or it ends too early")
        if name.endswith((".in_sum2", ".counts")):
            cursor.at = min(start + offset, len(cursor.data))
            found[name] = cursor.floats(count)
    return found


def _mean(cursor: _Cursor, name: str, found: Mapping[str, Floats]) -> Floats:
    """Sums over counts; a matrix that was never used counts evenly."""
    sums, counts = found.get(f"{name}.in_sum2"), found.get(f"{name}.counts")
    if sums is None or counts is None or not counts.size or sums.size % counts.size:
        raise cursor.refusal(f"the sums and counts of {show(name)} do not belong together")
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise cursor.refusal(f"the counts of {show(name)} are negative or not finite")
    rounded = np.floor(counts.astype(np.float64) + 0.5).astype(np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = sums.reshape(counts.size, -1) / rounded
    return np.where(rounded > 0, means, np.float32(1)).ravel()
