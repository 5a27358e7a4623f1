"""KV snapshots: the KV cells of a token sequence, in a file.

    file:  magic | header length u32 | header (JSON) | ids i32[n_ids] | cells

The header names what the cells depend on: the model's fingerprint, the library's build and the
context's settings. If any of it differs, or the file is damaged or truncated, `read` returns None
and the prompt is prefilled again: that is no error. A file's modification time is its last use;
`prune` removes the oldest files first.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import math
import os
import stat
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edgesppo.system.fs import FileSystem, atomic_write, is_abandoned, is_temporary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, BinaryIO

_KIND = b"edgesppo-kv-"  # how the files of every version begin
MAGIC = _KIND + b"1\n"
SUFFIX = ".kv"
_MAX_HEADER = 4096
MAX_BYTES = 1 << 36
# What cells with another value of a binding's field are of.
_OTHER = {
    "model": "another model",
    "library": "another build of llama.cpp",
    "settings": "another --cache-type, --gpu or attention",
}
# What reading a file raises that is damaged, or no snapshot.
_DAMAGED = (
    *(OSError, ArithmeticError, ValueError, LookupError, TypeError, AttributeError),
    *(struct.error, RecursionError, MemoryError),
)


@dataclass(frozen=True)
class Binding:
    """What KV cells depend on: they can be used only with the same binding."""

    model: str
    library: str
    settings: str


@dataclass(frozen=True)
class Snapshot:
    """The KV cells of the tokens `ids`, as `Engine.state` returns them.

    `prefill` is the longest prefill measured in the chat, in tokens and seconds; (0, 0.0) if
    unknown.
    """

    ids: Sequence[int]
    cells: bytearray | memoryview
    prefill: tuple[int, float] = (0, 0.0)

    @property
    def n_bytes(self) -> int:
        """The most that its file takes."""
        return len(MAGIC) + 4 + _MAX_HEADER + 4 * len(self.ids) + len(self.cells)


def write(
    path: Path, binding: Binding, snapshot: Snapshot, files: FileSystem | None = None
) -> None:
    """Write a snapshot atomically, readable only by its owner. Raises OSError."""
    numbers = array.array("i", snapshot.ids).tobytes()
    digest = hashlib.sha256(numbers)
    digest.update(snapshot.cells)
    sizes = {"n_ids": len(snapshot.ids), "n_state": len(snapshot.cells)}
    prefill, checksum = snapshot.prefill, digest.hexdigest()
    header = {**asdict(binding), **sizes, "prefill": prefill, "sha256": checksum}
    text = json.dumps(header).encode()
    head = MAGIC + struct.pack("<I", len(text)) + text + numbers
    # No fsync: the checksum detects what a power failure damages, and it is prefilled again.
    atomic_write(path, head, snapshot.cells, files=files or FileSystem(), mode=0o600, sync=False)


def read(path: Path, binding: Binding, limit: int | None = None) -> Snapshot | None:
    """Read a snapshot, and mark its file as used.

    None if there is no such file, it has another binding, is damaged, or its cells take more than
    `limit` bytes.
    """
    try:
        with os.fdopen(FileSystem().open_to_read(path), "rb") as file:
            header = _header(file, binding)
            if header is None:
                return None
            n_ids, n_state = _whole(header["n_ids"]), _whole(header["n_state"])
            most = MAX_BYTES if limit is None else limit
            remaining = path.stat().st_size - file.tell()
            if not 0 < n_state <= most or n_ids < 0 or remaining != 4 * n_ids + n_state:
                return None
            numbers, cells = file.read(4 * n_ids), bytearray(n_state)
            if file.readinto(cells) != n_state:
                return None
        os.utime(path)
        tokens, seconds = header["prefill"]
        prefill = (_whole(tokens), float(seconds))
        if not 0 <= prefill[1] < math.inf:
            return None
    except _DAMAGED:
        return None
    digest = hashlib.sha256(numbers)
    digest.update(cells)
    if digest.hexdigest() != header.get("sha256"):
        return None
    return Snapshot(array.array("i", numbers).tolist(), cells, prefill)


def belongs(path: Path, binding: Binding) -> bool:
    """Whether a file says that it is a snapshot with this binding; it may yet be damaged."""
    try:
        with os.fdopen(FileSystem().open_to_read(path), "rb") as file:
            return _header(file, binding) is not None
    except _DAMAGED:
        return False


def why_unusable(path: Path, binding: Binding) -> str:
    """Why the cells at `path` were not restored, for people."""
    try:
        with os.fdopen(FileSystem().open_to_read(path), "rb") as file:
            header = _any_header(file)
        other = () if header is None else _differences(header, binding)
    except FileNotFoundError:
        return "its KV cache was not saved"
    except _DAMAGED:
        other = ()
    if other:
        return f"its KV cache is of {_OTHER[other[0]]}"
    return "its saved KV cache is damaged, or there is no room for it"


def _header(file: BinaryIO, binding: Binding) -> dict[str, Any] | None:
    """The header of an open file; None if it is no snapshot, or has another binding."""
    header = _any_header(file)
    return None if header is None or _differences(header, binding) else header


def _any_header(file: BinaryIO) -> dict[str, Any] | None:
    """The header of an open file, whatever its binding; None if it is no snapshot."""
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or file.read(len(MAGIC)) != MAGIC:
        return None
    (length,) = struct.unpack("<I", file.read(4))
    header: dict[str, Any] = json.loads(file.read(min(length, _MAX_HEADER)))
    return header


def _differences(header: dict[str, Any], binding: Binding) -> tuple[str, ...]:
    """The fields of a binding that a header has otherwise."""
    return tuple(key for key, value in asdict(binding).items() if header.get(key) != value)


def _whole(value: object) -> int:
    """The value, which must be a whole number that native code can count with."""
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError
    return value


def prune(folder: Path, cap: int) -> None:
    """Remove the oldest snapshots in a folder until the others take at most `cap` bytes.

    Unfinished files of killed processes are removed first. Files of other programs that end in .kv
    are left alone.
    """
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.name.endswith(SUFFIX) and _is_snapshot(path):
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


def _is_snapshot(path: Path) -> bool:
    """Whether a file begins as the snapshots of any version do. Raises OSError."""
    with os.fdopen(FileSystem().open_to_read(path), "rb") as file:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(len(_KIND)) == _KIND


def remove_unfinished(path: Path, files: FileSystem) -> None:
    """Remove unfinished files of the snapshot at `path`. No process may be writing one."""
    for draft in path.parent.iterdir():
        if draft.name.startswith(f".{path.name}.") and is_temporary(draft, SUFFIX):
            with contextlib.suppress(OSError):
                files.unlink(draft)
