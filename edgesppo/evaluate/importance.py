"""Importance matrices as sums: for each weight, the squares of its inputs, and how many there were.

The file is llama.cpp's GGUF form, which llama-quantize and `edgesppo convert --imatrix` read:

    keys      general.type "imatrix", imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size
    tensors   NAME.in_sum2 (one value per column) and NAME.counts (one value), F32
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from edgesppo.errors import BadModelFile, ModelNotFound, UsageError
from edgesppo.gguf import arrays, reader
from edgesppo.system.fs import write_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.gguf.reader import TensorEntry

CHUNK = 512  # tokens; what llama-imatrix counts in
HARDLY_SEEN = 1000  # tokens; fewer say little about a column
_SUMS, _COUNTS = ".in_sum2", ".counts"
_DATASETS = "imatrix.datasets"
_REQUEST = "edgesppo.imatrix.request"  # a key of our own, which llama.cpp ignores


@dataclass
class Entry:
    """The sums of squares of one weight's inputs, and the number of tokens."""

    sums: NDArray[np.float64]
    count: int = 0


@dataclass
class ImportanceSums:
    """What was collected for each weight, and the names of the texts that it was collected on."""

    entries: dict[str, Entry] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)

    def add(self, weight: str, sums: NDArray[np.floating], count: int) -> None:
        """Add the inputs of `count` tokens. Raises UsageError if their size is another one."""
        entry = self.entries.get(weight)
        if entry is None:
            entry = self.entries[weight] = Entry(np.zeros(sums.size))
        if entry.sums.size != sums.size:
            raise UsageError(
                f"the importance matrices do not go together: {weight} has {entry.sums.size:,} "
                f"columns in one and {sums.size:,} in another; they are of different models"
            )
        entry.sums += sums
        entry.count += count

    def merge(self, other: ImportanceSums) -> None:
        """Add all of another matrix."""
        for weight, entry in other.entries.items():
            self.add(weight, entry.sums, entry.count)
        self.datasets += other.datasets

    def check(self, summary: Summary, name: str) -> None:
        """Raise UsageError unless these are weights of this model."""
        columns = {tensor.name: tensor.dims[0] for tensor in summary.tensors}
        for weight, entry in self.entries.items():
            if columns.get(weight) != entry.sums.size:
                found = columns.get(weight)
                what = "which it does not have" if found is None else f"which has {found:,} there"
                raise UsageError(
                    f"{name} is of another model than {summary.path}: it has {entry.sums.size:,} "
                    f"columns for {weight}, {what}"
                )

    def hardly_seen(self, weights: Iterable[str] = ()) -> dict[str, int]:
        """The weights that few tokens reached, with their number; 0 for one that is not there."""
        counts = dict.fromkeys(weights, 0)
        counts |= {name: entry.count for name, entry in self.entries.items()}
        return {name: count for name, count in counts.items() if count < HARDLY_SEEN}

    @property
    def n_tokens(self) -> int:
        """The most tokens that any weight has seen."""
        return max((entry.count for entry in self.entries.values()), default=0)


@dataclass(frozen=True)
class WeightImportance:
    """How much the inputs of one weight matter, and how unevenly.

    `total` is the sum of its columns' mean squares, `top` the share that the hundredth of the
    columns with the most has of it.
    """

    weight: str
    tokens: int
    total: float
    top: float


def rank(sums: ImportanceSums) -> list[WeightImportance]:
    """All weights, those with the largest inputs first."""
    found = []
    for weight, entry in sums.entries.items():
        total = float(entry.sums.sum())
        n_top = -(-entry.sums.size // 100)
        top = float(np.sort(entry.sums)[-n_top:].sum()) / total if total else 0.0
        found.append(WeightImportance(weight, entry.count, total / max(1, entry.count), top))
    return sorted(found, key=lambda one: -one.total)


def read_sums(path: Path) -> ImportanceSums:
    """Read a matrix in GGUF form. Raises ModelNotFound and BadModelFile."""
    summary = reader.read(path)
    if summary.keys.get("general.type") != "imatrix" or _DATASETS not in summary.arrays:
        raise BadModelFile(
            f"{path} is not an importance matrix: expected a GGUF file whose general.type is "
            f"'imatrix', with {_DATASETS}"
        )
    names = [name for name in arrays.read_array(summary, _DATASETS) if isinstance(name, str)]
    found = ImportanceSums(datasets=names)
    tensors = {tensor.name: tensor for tensor in summary.tensors}
    for name, tensor in tensors.items():
        if name.endswith(_SUMS):
            weight = name.removesuffix(_SUMS)
            counts = _floats(path, tensors.get(weight + _COUNTS), weight)
            if counts.size != 1:
                raise BadModelFile(f"{path} has {counts.size} counts for {weight}, expected one")
            found.add(weight, _floats(path, tensor, weight), round(float(counts[0])))
    if not found.entries:
        raise BadModelFile(f"{path} is not an importance matrix: it has no entries")
    return found


def is_matrix(path: Path) -> bool:
    """Whether a file calls itself an importance matrix; its contents are not checked."""
    try:
        with path.open("rb") as file:
            return b"imatrix" in file.read(4096)
    except OSError:
        return False


def _floats(path: Path, tensor: TensorEntry | None, weight: str) -> NDArray[np.float64]:
    if tensor is None or tensor.type != "F32":
        raise BadModelFile(f"{path}: the sums and counts of {weight!r} are not both there as F32")
    values = np.fromfile(path, "<f4", tensor.n_bytes // 4, offset=tensor.offset)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise BadModelFile(f"{path} has negative or non-finite values for {weight!r}")
    return values.astype(np.float64)


def write_part(path: Path, matrix: Path, weights: Collection[str], request: str) -> None:
    """Write the entries of a matrix that are of these weights; see `write_sums`."""
    found = read_sums(matrix)
    entries = {name: entry for name, entry in found.entries.items() if name in weights}
    write_sums(path, ImportanceSums(entries, found.datasets), request)


def request_of(path: Path) -> str | None:
    """The hash of what a matrix was asked for with, if `write_sums` recorded one."""
    try:
        found = reader.read(path).keys.get(_REQUEST)
    except (BadModelFile, ModelNotFound):
        return None
    return found if isinstance(found, str) else None


def write_sums(path: Path, sums: ImportanceSums, request: str | None = None) -> None:
    """Write the matrix, completely or not at all. Raises OutputError.

    `request` is a hash of what it was asked for with.
    """
    from gguf import GGMLQuantizationType, GGUFValueType

    from edgesppo_convert.gguf_format import KeyValue, TensorInfo, plan_file

    text, u32 = GGUFValueType.STRING, GGUFValueType.UINT32
    keys = [
        KeyValue("general.type", text, "imatrix"),
        KeyValue(_DATASETS, text, sums.datasets),
        KeyValue("imatrix.chunk_count", u32, -(-sums.n_tokens // CHUNK)),
        KeyValue("imatrix.chunk_size", u32, CHUNK),
    ]
    if request is not None:
        keys.append(KeyValue(_REQUEST, text, request))
    values: dict[str, NDArray[np.float32]] = {}
    for weight, entry in sorted(sums.entries.items()):
        values[weight + _SUMS] = entry.sums.astype("<f4")
        values[weight + _COUNTS] = np.array([entry.count], "<f4")
    kind = GGMLQuantizationType.F32
    infos = [TensorInfo(name, (1, data.size), kind, data.nbytes) for name, data in values.items()]
    plan = plan_file(keys, infos)
    parts = [plan.head]
    for slot in plan.slots:
        data = values[slot.tensor.name].tobytes()
        parts.append(data + bytes(slot.padded_end - slot.end))
    write_file(path, b"".join(parts))


class PartialSums:
    """The file beside an output that holds an unfinished calibration, exactly.

    It counts only for the same model, options and samples, of which `fingerprint` is a hash.
    """

    def __init__(self, output: Path, fingerprint: str) -> None:
        self.path = output.with_name(f".{output.name}.edgesppo-part")
        self._fingerprint = fingerprint

    def load(self) -> tuple[int, ImportanceSums]:
        """The number of samples that are done, and their sums; 0 if there is nothing to resume."""
        try:
            # Opened here: NumPy leaves a damaged one open.
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if str(file["fingerprint"]) != self._fingerprint:
                    return 0, ImportanceSums()
                found = ImportanceSums()
                for name, count in zip(file["names"], file["counts"], strict=True):
                    found.add(str(name), file[f"sums/{name}"], int(count))
                return int(file["done"]), found
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
            return 0, ImportanceSums()  # nothing there, or damaged

    def save(self, done: int, sums: ImportanceSums) -> None:
        """Record that `done` samples are in these sums. Raises OutputError."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"sums/{name}": one.sums for name, one in sums.entries.items()}
        arrays["fingerprint"] = np.array(self._fingerprint)
        arrays["done"] = np.array(done)
        arrays["names"] = np.array(list(sums.entries))
        arrays["counts"] = np.array([entry.count for entry in sums.entries.values()])
        np.savez(buffer, **arrays)
        write_file(self.path, buffer.getvalue())

    def remove(self) -> None:
        """Remove the file; the calibration is complete."""
        self.path.unlink(missing_ok=True)
