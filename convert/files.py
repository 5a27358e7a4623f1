"""Owns every operation that changes the disk, one method each, and the checks before the work.

`Files` is the one thin layer under all writing, so that a test can make any operation fail.
Knows nothing of what is written.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError

if TYPE_CHECKING:
    Bytes = bytes | bytearray | memoryview

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Never through a symbolic link: the names that are opened so are our own.
_OURS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_LOCKED_BYTE = 1 << 40  # on Windows a locked byte cannot be read: one that is never there


class Files:
    """The operations, straight through to the system."""

    def create(self, path: Path) -> int:
        """Open a new file for reading and writing; fails where there is one."""
        return os.open(path, _OURS | os.O_CREAT | os.O_EXCL, 0o666)

    def open(self, path: Path) -> int:
        """Open an existing file for reading and writing."""
        return os.open(path, _OURS)

    def open_or_create(self, path: Path) -> int:
        """Open a file for reading and writing, be it new or not."""
        return os.open(path, _OURS | os.O_CREAT, 0o666)

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


def write_all(files: Files, descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of the data, in as many steps as the system wants."""
    rest = memoryview(data)
    while rest:
        count = files.write(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def cannot_write(path: Path, error: OSError) -> OutputError:
    """What a failing operation means to a person."""
    if error.errno in NO_SPACE:
        return OutputError(f"no space left for {path}; free some first")
    return OutputError(f"cannot write {path}: {error.strerror or error}")


def check_target(path: Path, *, force: bool) -> Path:
    """Where the output will really go; refuses, before any work, what could not succeed."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OutputError(f"the output folder {target.parent} does not exist; create it first")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        raise OutputError(f"the output {path} exists and is not a file; name a file")
    if not force:
        raise OutputError(f"the output {path} exists; use --force (force=True) to replace it")
    return target


def check_space(target: Path, needed: int) -> None:
    """Refuse at once what would fail after minutes; where the system cannot tell, go on."""
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return
    if free < needed:
        raise OutputError(
            f"no space left for {target}: it needs {needed:,} bytes, {free:,} are free in"
            f" {target.parent}"
        )
