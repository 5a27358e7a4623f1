"""File operations, one method each, and writing a file atomically.

All code that writes does so through `FileSystem`, so that a test can make any operation fail.
`atomic_write` writes a small file completely or not at all, by way of a temporary file beside it:

    FOLDER/.NAME.0123456789abcdef    FOLDER/NAME until it is complete, then renamed
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgesppo.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Bytes = bytes | bytearray | memoryview

_BLOCK = 4 << 20  # bytes read at a time
_CANNOT_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# The errors of systems and file systems without hard links; Windows says "invalid function".
NO_LINKS = (
    *(errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.EXDEV),
    *(errno.ENOTSUP, errno.EOPNOTSUPP),
)
# Never follow a symbolic link: edgesppo does not create any, so someone else put it there.
_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
# Without waiting where it is a pipe; what the user names may be a link.
_READING = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_LOCKED_BYTE = 1 << 40  # on Windows a locked byte cannot be read, so lock one far beyond the end
_TOKEN_BYTES = 8  # in the name of a temporary file
# Windows neither replaces nor renames a file that any program has open, as another writer of it or
# a virus scanner has for a moment.
_BUSY_S = 2.0 if sys.platform == "win32" else 0.0
_POLL_S = 0.01
_STALE_S = 3600  # a temporary file of this age was left by a process that was killed


class FileSystem:
    """The operations, passed straight on to the system. All raise OSError."""

    def create(self, path: Path, mode: int = 0o666) -> int:
        """Create a file and open it for reading and writing; raises FileExistsError."""
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: Path) -> int:
        """Open an existing file for reading and writing."""
        return os.open(path, _FLAGS)

    def open_to_read(self, path: Path) -> int:
        """Open an existing file for reading, without waiting where it is a pipe."""
        return os.open(path, _FLAGS & ~os.O_RDWR | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))

    def open_or_create(self, path: Path, mode: int = 0o666) -> int:
        """Open a file for reading and writing, creating it if needed."""
        return os.open(path, _FLAGS | os.O_CREAT, mode)

    def make_folder(self, path: Path, mode: int = 0o700) -> None:
        """Create a folder for its owner alone, and its parents; it may exist already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=mode, exist_ok=True)

    def lock(self, descriptor: int, *, shared: bool = False) -> None:
        """Lock an open file until it is closed; raises BlockingIOError if it is locked already.

        Any number of processes may hold it `shared`, and then none alone. Windows has no such lock,
        but removes no file that is open.
        """
        if sys.platform == "win32":
            if shared:
                return
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except PermissionError as error:
                raise BlockingIOError(*error.args) from None
        else:
            import fcntl

            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Read up to `length` bytes from `offset` on; none at the end of the file."""
        if hasattr(os, "pread"):
            return os.pread(descriptor, length, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)

    def write(self, descriptor: int, data: Bytes, offset: int) -> int:
        """Write some of the data at `offset`; returns the number of bytes written."""
        if hasattr(os, "pwrite"):
            return os.pwrite(descriptor, data, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut or extend a file to `size` bytes."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's data is on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file, replacing the target if it exists; waits a little while one is in use."""
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                source.replace(target)
                return
            except PermissionError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_POLL_S)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name (a hard link); raises FileExistsError if it is taken."""
        target.hardlink_to(source)

    def unlink(self, path: Path) -> None:
        """Remove a file if it exists."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the folder's entries are on the disk.

        Windows cannot, and need not; nor can some file systems of networks and virtual machines.
        """
        if os.name != "nt":
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            except OSError as error:
                if error.errno not in _CANNOT_SYNC:
                    raise
            finally:
                os.close(descriptor)


def write_all(files: FileSystem, descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of the data at `offset`, in steps between which a Ctrl-C is heard."""
    remaining = memoryview(data)
    while remaining:
        count = files.write(descriptor, remaining[:_BLOCK], offset)
        remaining, offset = remaining[count:], offset + count


def read_all(files: FileSystem, descriptor: int, limit: int) -> bytes:
    """The bytes of an open file, the first `limit` at most."""
    data = bytearray()
    while part := files.read(descriptor, min(_BLOCK, limit - len(data)), len(data)):
        data += part
    return bytes(data)


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file. Raises OSError, also if it has more than `limit` bytes.

    A pipe or a device, which may never end, is refused at once.
    """
    if path.is_dir():  # on Windows to open one is refused as anything is
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    descriptor = os.open(path, _READING)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
            raise OSError(errno.EINVAL, f"it is {kind}, expected a file", str(path))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return data


def hash_file(
    path: Path,
    hasher: Any,
    on_hash: Callable[[int, int], None] | None = None,
    *,
    done: int = 0,
    total: int = 0,
) -> int:
    """Feed a whole file to a hash object; returns its length in bytes. Raises OSError.

    `on_hash` is called as `on_hash(hashed, total)` after each block, for `total` bytes in several
    files, of which `done` were hashed before this one.
    """
    size = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_BLOCK):
            hasher.update(data)
            size += len(data)
            if on_hash is not None:
                on_hash(min(done + size, total), total)
    return size


def atomic_write(
    path: Path, *parts: Bytes, files: FileSystem, mode: int = 0o666, sync: bool = True
) -> None:
    """Replace a file's content by `parts`, completely or not at all. Raises OSError.

    Several processes may write the same file at once: the last one wins. `sync` waits until the
    data is on the disk. A device or a pipe is left as it is, which is an error.
    """
    _check_replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(_TOKEN_BYTES).hex()}")
    try:
        descriptor, offset = files.create(temporary, mode), 0
        try:
            for part in parts:
                write_all(files, descriptor, part, offset)
                offset += len(part)
            if sync:
                files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.replace(temporary, path)
        if sync:
            files.sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            files.unlink(temporary)
        raise


def _check_replaceable(path: Path) -> None:
    """Raise OSError if there is something at `path` that no file may replace, as a device."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise OSError(errno.EEXIST, f"it is {what}; name another")


def write_file(
    path: Path, data: Bytes, *, files: FileSystem | None = None, mode: int = 0o666
) -> None:
    """Replace a file's content, completely or not at all. Raises OutputError."""
    try:
        atomic_write(path, data, files=files or FileSystem(), mode=mode)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at `path`, which is no link to it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def is_same_file(path: Path, other: Path) -> bool:
    """Whether two paths name one existing file."""
    with suppress(OSError):
        return path.samefile(other)
    return False


def is_temporary(path: Path, suffix: str) -> bool:
    """Whether this is the name of an `atomic_write` temporary, for a file that ends in `suffix`."""
    stem, _, token = path.name.rpartition(".")
    return stem.startswith(".") and stem.endswith(suffix) and len(token) == 2 * _TOKEN_BYTES


def is_abandoned(path: Path, suffix: str) -> bool:
    """Whether it is a temporary file so old that its process must have been killed."""
    return is_temporary(path, suffix) and time.time() - path.stat().st_mtime > _STALE_S


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error to show for a failed write to `path`, with what to do about it."""
    if error.errno in NO_SPACE:
        return OutputError(f"no space left for {path}; free some and try again")
    advice = "; use a folder that you can write to (EDGESPPO_HOME sets it for models and chats)"
    if sys.platform == "win32" and path.exists():
        advice = f"; end the programs that have it open, or{advice[1:]}"
    why = f"{error.strerror or error}{advice if error.errno in _FORBIDDEN else ''}"
    return OutputError(f"cannot write {path}: {why}")
