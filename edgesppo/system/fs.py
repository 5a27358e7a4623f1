"""Owns every operation that changes the disk, one method each; both roads write through it.

`FileSystem` is the one thin layer under all writing, so that a test can make any operation fail.
`atomic_write` writes a small file whole or not at all, through a draft beside it:

    FOLDER/.NAME.0123456789abcdef    a draft of FOLDER/NAME, renamed when it is whole

Knows nothing of what is written. Standard library only.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Bytes = bytes | bytearray | memoryview

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# What systems and file systems without hard links say; Windows calls it an invalid function.
NO_LINKS = (
    *(errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.EXDEV),
    *(errno.ENOTSUP, errno.EOPNOTSUPP),
)
# Never through a symbolic link: the names that are opened so are our own.
_OURS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_LOCKED_BYTE = 1 << 40  # on Windows a locked byte cannot be read: one that is never there
_TOKEN_BYTES = 8  # of a draft's name
_STALE_S = 3600  # a draft of this age is of a process that was killed


class FileSystem:
    """The operations, straight through to the system."""

    def create(self, path: Path, mode: int = 0o666) -> int:
        """Open a new file for reading and writing; fails where there is one."""
        return os.open(path, _OURS | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: Path) -> int:
        """Open an existing file for reading and writing."""
        return os.open(path, _OURS)

    def open_to_read(self, path: Path) -> int:
        """Open an existing file for reading; a pipe of that name is not waited for."""
        return os.open(path, _OURS & ~os.O_RDWR | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))

    def open_or_create(self, path: Path, mode: int = 0o666) -> int:
        """Open a file for reading and writing, be it new or not."""
        return os.open(path, _OURS | os.O_CREAT, mode)

    def make_folder(self, path: Path, mode: int = 0o700) -> None:
        """Create a folder, and those above it, for its owner alone; it may be there already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=mode, exist_ok=True)

    def lock(self, descriptor: int) -> None:
        """Make it ours alone, until it is closed; raises BlockingIOError where another has it."""
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except PermissionError as error:
                raise BlockingIOError(*error.args) from None
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Some of the bytes from `offset` on; none at the end of the file."""
        if hasattr(os, "pread"):
            return os.pread(descriptor, length, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)

    def write(self, descriptor: int, data: Bytes, offset: int) -> int:
        """Write some of the data at `offset`; says how much."""
        if hasattr(os, "pwrite"):
            return os.pwrite(descriptor, data, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut or extend a file to this size."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's data is on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of what had that name."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; raises FileExistsError where that is taken."""
        target.hardlink_to(source)

    def unlink(self, path: Path) -> None:
        """Remove a file; it may be gone already."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the folder's names are on the disk; Windows cannot, and need not."""
        if os.name != "nt":
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def write_all(files: FileSystem, descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of the data, in as many steps as the system wants."""
    rest = memoryview(data)
    while rest:
        count = files.write(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def read_all(files: FileSystem, descriptor: int, limit: int) -> bytes:
    """All bytes of an open file, of the first `limit` at most."""
    data = b""
    while part := files.read(descriptor, limit - len(data), len(data)):
        data += part
    return data


def blocks(path: Path, size: int = 4 << 20) -> Iterator[bytes]:
    """A file's bytes from its first to its last, so many at a time. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        while data := file.read(size):
            yield data


def atomic_write(
    path: Path, *parts: Bytes, files: FileSystem, mode: int = 0o666, sync: bool = True
) -> None:
    """Write a file in place of what had its name: whole, or not at all. Raises OSError.

    Many may write the same file at once: the last one wins. `sync` waits until it is on the disk.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(_TOKEN_BYTES).hex()}")
    try:
        descriptor, offset = files.create(draft, mode), 0
        try:
            for part in parts:
                write_all(files, descriptor, part, offset)
                offset += len(part)
            if sync:
                files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.replace(draft, path)
        if sync:
            files.sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            files.unlink(draft)
        raise


def is_draft(path: Path, name: str = "") -> bool:
    """Whether `atomic_write` gives such names for a file whose name ends so."""
    stem, _, token = path.name.rpartition(".")
    return stem.startswith(".") and stem.endswith(name) and len(token) == 2 * _TOKEN_BYTES


def is_abandoned(path: Path, name: str = "") -> bool:
    """Whether it is a draft that a killed process left, as its age tells."""
    return is_draft(path, name) and time.time() - path.stat().st_mtime > _STALE_S


def cannot_write(path: Path, error: OSError) -> OutputError:
    """What a failing operation means to a person."""
    if error.errno in NO_SPACE:
        return OutputError(f"no space left for {path}; free some first")
    advice = "; use a folder that can be written (ours: EDGESPPO_HOME)"
    why = f"{error.strerror or error}{advice if error.errno in _FORBIDDEN else ''}"
    return OutputError(f"cannot write {path}: {why}")
