"""Owns a saved chat's file: reading it, telling what of it is sound, writing it whole.

Knows nothing of sessions that go on in it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from edgesppo.errors import BadChat, ChatInUse
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.transcript import VERSION, Transcript, changes, replay
from edgesppo.system import filelock, jsonl
from edgesppo.system.fs import FileSystem, atomic_write, cannot_write, read_all

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.sessions.transcript import Conversation

SUFFIX = ".jsonl"
MODE = 0o600
_MAX_BYTES = 1 << 28  # ten thousand of the longest answers take half of it


def state_path(path: Path) -> Path:
    """Where the KV state of the chat at `path` is."""
    return path.with_name(path.name + kv_snapshot.SUFFIX)


def read(path: Path, files: FileSystem | None = None) -> bytes:
    """The bytes of a saved chat; none where there is no file.

    Raises BadChat for a file of a newer version, for one that is too large, and for what is no
    file, such as a pipe, which is not waited for; OSError.
    """
    files = files or FileSystem()
    try:
        descriptor = files.open_to_read(path)
    except FileNotFoundError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadChat(f"{path}: no regular file, so no saved chat; move it away")
        data = read_all(files, descriptor, _MAX_BYTES + 1)
    finally:
        files.close(descriptor)
    if len(data) > _MAX_BYTES:
        raise BadChat(f"{path}: larger than any saved chat ({_MAX_BYTES:,} bytes); move it away")
    version = _version(data)
    if version is not None and version > VERSION:
        raise BadChat(
            f"{path}: written by a newer edgesppo (version {version}, this one reads {VERSION}); "
            "use that one, or another name"
        )
    return data


def understand(data: bytes) -> tuple[Transcript | None, tuple[int, int]]:
    """What the sound part of a file tells, and where that part ends, with its checksum.

    A last line that lacks only its newline is sound, too: the end is then behind the data.
    """
    found = max((jsonl.read_valid(d) for d in (data, data + b"\n", data[:-1] + b"\n")), key=len)
    transcript, sound = replay([line.event for line in found])
    return transcript, ((found[sound - 1].end, found[sound - 1].crc) if transcript else (0, 0))


def is_torn(data: bytes, end: int) -> bool:
    """Whether what follows the sound part can be one line of ours that was never finished."""
    return b"\n" not in data[end:] and jsonl.is_unfinished(data[end:])


def replace(path: Path, now: Conversation, files: FileSystem | None = None) -> None:
    """Write a chat anew, whole, in place of what had that name. Raises OutputError, ChatInUse."""
    files = files or FileSystem()
    held = lock(path, files)
    try:
        atomic_write(path, jsonl.encode(changes(None, now))[0], files=files, mode=MODE)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        held.release()


def _version(data: bytes) -> int | None:
    """What the first line says. Lines and this key are the same in every version."""
    found = jsonl.read_valid(data[: data.find(b"\n") + 1])
    header = found[0].event if found else {}
    version = header.get("version") if "edgesppo" in header else None
    return version if isinstance(version, int) else None


def lock(path: Path, files: FileSystem) -> filelock.FileLock:
    """Let no other process work on the chat at `path`. Raises ChatInUse, OutputError."""
    try:
        return filelock.FileLock(path.with_name(f".{path.name}.lock"), files)
    except filelock.LockHeld as held:
        name = path.name.removesuffix(SUFFIX)
        raise ChatInUse(
            f"the chat {name!r} is open in {held.owner}; leave it there first, or use another name"
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from None
