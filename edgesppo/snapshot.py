"""Owns KV state on disk, bound to what it was made from. Knows nothing of chats.

    file:  magic | header length u32 | header (JSON) | ids i32[n_ids] | state

The header repeats the binding: the model's fingerprint, the library's build and the context's
settings. Whatever differs, is damaged or is cut short is no error: `read` gives None, and the
prompt is prefilled again.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import os
import secrets
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

MAGIC = b"edgesppo-kv-1\n"
SUFFIX = ".kv"
_MAX_HEADER = 4096
_MAX_BYTES = 1 << 36
# The fingerprint reads the header and this many places of the tensors, of this many bytes.
_PLACES, _PLACE_BYTES = 64, 1 << 16


@dataclass(frozen=True)
class Binding:
    """What a state was made from; it serves nothing else."""

    model: str
    library: str
    settings: str


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


def write(path: Path, binding: Binding, ids: Sequence[int], state: memoryview) -> None:
    """Write a state; it appears under its name only when whole, readable by its owner only."""
    numbers = array.array("i", ids).tobytes()
    digest = hashlib.sha256(numbers)
    digest.update(state)
    header = json.dumps(
        {**asdict(binding), "n_ids": len(ids), "n_state": len(state), "sha256": digest.hexdigest()}
    ).encode()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, for its mode
            file.write(MAGIC + struct.pack("<I", len(header)) + header + numbers)
            file.write(state)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def read(path: Path, binding: Binding) -> tuple[list[int], bytearray] | None:
    """The ids and state of a file made under this very binding, or None."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            (length,) = struct.unpack("<I", file.read(4))
            header = json.loads(file.read(min(length, _MAX_HEADER)))
            if {key: header.get(key) for key in asdict(binding)} != asdict(binding):
                return None
            n_ids, n_state = int(header["n_ids"]), int(header["n_state"])
            rest = path.stat().st_size - file.tell()
            if not 0 < n_state < _MAX_BYTES or n_ids < 0 or rest != 4 * n_ids + n_state:
                return None
            numbers, state = file.read(4 * n_ids), bytearray(n_state)
            if file.readinto(state) != n_state:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None
    digest = hashlib.sha256(numbers)
    digest.update(state)
    if digest.hexdigest() != header.get("sha256"):
        return None
    return array.array("i", numbers).tolist(), state


def prune(folder: Path, cap: int) -> None:
    """Remove the oldest snapshots of a folder until they take at most `cap` bytes."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= cap:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
