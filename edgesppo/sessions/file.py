"""The file of a saved chat: read it, find its undamaged part, replace it, lock it."""

from __future__ import annotations

import itertools
import os
import re
import stat
from typing import TYPE_CHECKING

from edgesppo.errors import BadChat, ChatInUse
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.transcript import VERSION, Transcript, changes, replay
from edgesppo.system import filelock, jsonl
from edgesppo.system.fs import FileSystem, cannot_write, read_all, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.sessions.transcript import Conversation

SUFFIX = ".jsonl"
MODE = 0o600
_MAX_BYTES = 1 << 28  # twice what ten thousand of the longest answers take
_MAX_EVENTS = 1 << 20


def state_path(path: Path) -> Path:
    """The file of the KV state of the chat at `path`."""
    return path.with_name(path.name + kv_snapshot.SUFFIX)


def lock_path(path: Path) -> Path:
    """The file that is locked while the chat at `path` is open."""
    return path.with_name(f".{path.name}.lock")


def damaged_copies(path: Path) -> list[Path]:
    """The copies of the chat at `path` as it was when damage was found. Raises OSError."""
    name = re.compile(re.escape(f"{path.name}.damaged-") + "[0-9]+")
    return sorted(found for found in path.parent.iterdir() if name.fullmatch(found.name))


def read(path: Path, files: FileSystem | None = None) -> bytes:
    """The bytes of a saved chat; empty if there is no file.

    Raises BadChat for a file of a newer version, one that is too large, and anything that is not a
    regular file (a pipe is not waited for); OSError if reading fails.
    """
    files = files or FileSystem()
    try:
        descriptor = files.open_to_read(path)
    except FileNotFoundError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadChat(f"{path}: not a regular file, so not a saved chat; move it away")
        data = read_all(files, descriptor, _MAX_BYTES + 1)
    finally:
        files.close(descriptor)
    if len(data) > _MAX_BYTES:
        raise BadChat(f"{path}: larger than any saved chat ({_MAX_BYTES:,} bytes); move it away")
    version = _version(data)
    if version is not None and version > VERSION:
        raise BadChat(
            f"{path}: written by a newer edgesppo (version {version}, this one reads {VERSION}); "
            "use that version, or another name for the chat"
        )
    return data


def parse(data: bytes) -> tuple[Transcript | None, tuple[int, int]]:
    """The transcript of a file's undamaged part; None if there is no such part.

    Also returns where that part ends, in bytes, and its running checksum; (0, 0) without one. A
    last line that lacks only its newline is undamaged: the end is then one byte after the data.
    """
    lines = jsonl.read_valid(data, last_may_lack_end=True)
    transcript, last = replay(itertools.islice(lines, _MAX_EVENTS))
    return transcript, (0, 0) if last is None else (last.end, last.crc)


def is_torn(data: bytes, end: int) -> bool:
    """Whether the bytes after the undamaged part can be one line that was not written in full."""
    return b"\n" not in data[end:] and jsonl.is_unfinished(data[end:])


def replace(path: Path, now: Conversation, files: FileSystem | None = None) -> None:
    """Write a chat to a file atomically, replacing any file there.

    Raises OutputError, and ChatInUse if another process has the chat of that file open.
    """
    files = files or FileSystem()
    with lock(path, files):
        write_file(path, jsonl.encode(changes(None, now))[0], files=files, mode=MODE)


def _version(data: bytes) -> int | None:
    """The version in the first line, whose format is the same in every version."""
    first = next(jsonl.read_valid(data[: data.find(b"\n") + 1]), None)
    header = first.event if first else {}
    version = header.get("version") if "edgesppo" in header else None
    return version if isinstance(version, int) else None


def lock(path: Path, files: FileSystem) -> filelock.FileLock:
    """Lock the chat at `path` for this process.

    Raises ChatInUse if another process has it open, OutputError if it cannot be locked.
    """
    try:
        return filelock.FileLock(lock_path(path), files, mode=0o600)
    except filelock.LockHeld as held:
        name = path.name.removesuffix(SUFFIX)
        raise ChatInUse(
            f"the chat {name!r} is open in {held.owner}; close it there first, or use another name"
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from None
