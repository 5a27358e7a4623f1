"""Owns KV state on disk, bound to what it was made from. Knows nothing of chats.

    file:  magic | header length u32 | header (JSON) | ids i32[n_ids] | cells

The header repeats the binding: the model's fingerprint, the library's build and the context's
settings. Whatever differs, is damaged or is cut short is no error: `read` gives None, and the
prompt is prefilled again. A file is dated by its last use; where there are too many, the oldest
go first.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import os
import stat
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edgesppo.system.fs import FileSystem, atomic_write, is_abandoned, is_temporary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

MAGIC = b"edgesppo-kv-1\n"
SUFFIX = ".kv"
_MAX_HEADER = 4096
MAX_BYTES = 1 << 36
# The fingerprint reads the header and this many places of the tensors, of this many bytes.
_PLACES, _PLACE_BYTES = 64, 1 << 16


@dataclass(frozen=True)
class Binding:
    """What a state was made from; it serves nothing else."""

    model: str
    library: str
    settings: str


@dataclass(frozen=True)
class Snapshot:
    """The KV cells of the tokens `ids`, as the engine gives and takes them.

    `prefill` is the longest prefill measured with them: tokens and seconds; (0, 0) is unknown.
    """

    ids: Sequence[int]
    cells: bytearray | memoryview
    prefill: tuple[int, float] = (0, 0.0)


def fingerprint(file: BinaryIO, header_bytes: int) -> str:
    """Tells a model file from any other that is not made to deceive, without reading it all.

    Hashes its size, its header (the first `header_bytes`) and samples all over its tensors: two
    fine-tunes of one architecture differ everywhere.
    """
    size = file.seek(0, os.SEEK_END)
    digest = hashlib.sha256(str(size).encode())
    file.seek(0)
    digest.update(file.read(header_bytes))
    for n in range(_PLACES):
        file.seek(header_bytes + (size - header_bytes) * n // _PLACES)
        digest.update(file.read(_PLACE_BYTES))
    return digest.hexdigest()


def write(path: Path, binding: Binding, held: Snapshot, files: FileSystem | None = None) -> None:
    """Write a snapshot; it appears under its name only when whole, readable by its owner only."""
    numbers = array.array("i", held.ids).tobytes()
    digest = hashlib.sha256(numbers)
    digest.update(held.cells)
    sizes = {"n_ids": len(held.ids), "n_state": len(held.cells)}
    header = {**asdict(binding), **sizes, "prefill": held.prefill, "sha256": digest.hexdigest()}
    text = json.dumps(header).encode()
    head = MAGIC + struct.pack("<I", len(text)) + text + numbers
    # Not waited for: what a power failure damages is told by its checksum, and prefilled again.
    atomic_write(path, head, held.cells, files=files or FileSystem(), mode=0o600, sync=False)


def read(path: Path, binding: Binding, limit: int | None = None) -> Snapshot | None:
    """What a file holds that was made under this very binding, or None.

    Not where its cells take more than `limit` bytes. A file that is read counts as used.
    """
    try:
        with os.fdopen(FileSystem().open_to_read(path), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or file.read(len(MAGIC)) != MAGIC:
                return None
            (length,) = struct.unpack("<I", file.read(4))
            header = json.loads(file.read(min(length, _MAX_HEADER)))
            if {key: header.get(key) for key in asdict(binding)} != asdict(binding):
                return None
            n_ids, n_state = int(header["n_ids"]), int(header["n_state"])
            most = MAX_BYTES if limit is None else limit
            rest = path.stat().st_size - file.tell()
            if not 0 < n_state <= most or n_ids < 0 or rest != 4 * n_ids + n_state:
                return None
            numbers, cells = file.read(4 * n_ids), bytearray(n_state)
            if file.readinto(cells) != n_state:
                return None
        os.utime(path)
        tokens, seconds = header["prefill"]
        prefill = (int(tokens), float(seconds))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None
    digest = hashlib.sha256(numbers)
    digest.update(cells)
    if digest.hexdigest() != header.get("sha256"):
        return None
    return Snapshot(array.array("i", numbers).tolist(), cells, prefill)


def prune(folder: Path, cap: int) -> None:
    """Remove the oldest snapshots of a folder until they take at most `cap` bytes.

    What a killed process left half-written goes first.
    """
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.name.endswith(SUFFIX):
                found.append((status.st_mtime_ns, status.st_size, path))
            elif is_abandoned(path, SUFFIX):
                path.unlink()
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= cap:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size


def sweep(path: Path, files: FileSystem) -> None:
    """Remove what a killed process left of writing the snapshot at `path`; nobody may be at it."""
    for draft in path.parent.iterdir():
        if draft.name.startswith(f".{path.name}.") and is_temporary(draft, SUFFIX):
            with contextlib.suppress(OSError):
                files.unlink(draft)
