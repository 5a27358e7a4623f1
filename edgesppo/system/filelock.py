"""A lock between processes: a file that one process at a time holds open and locked.

The system releases the lock when its process ends, however it ends, so a lock is never stale.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import OutputError
from edgesppo.system import jsonl, notices
from edgesppo.system.fs import cannot_write, is_at, write_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.system.fs import FileSystem

_ATTEMPTS = 100
_POLL_S = 0.1
_MAX_BYTES = 64 << 20
# On macOS the last two differ.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_SHOWN = 80  # characters of a host's name


class LockHeld(Exception):
    """Another process holds the lock; `owner` names it, for messages."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


def this_process() -> dict[str, Any]:
    """The fields of an event that name this process; `open_locked` reports them to others."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def open_locked(path: Path, files: FileSystem, *, to_write: bool = True, mode: int = 0o666) -> int:
    """Open a file, creating it if needed, and lock it until it is closed; its descriptor.

    On a disk that knows no locks, such as some network shares, it is opened without, and a notice
    says so. Without `to_write`, a file of another user's that cannot be written is locked, too.
    Raises LockHeld, and OSError, also for anything but a regular file, such as a link.
    """
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            _check_regular(path, path.lstat().st_mode)
        try:
            descriptor = files.open_or_create(path, mode)
        except PermissionError:
            if to_write or not path.exists():
                raise
            descriptor = files.open_to_read(path)
        try:
            _check_regular(path, os.fstat(descriptor).st_mode)
            _lock(path, descriptor, files)
            if is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            owner = _owner(files.read(descriptor, _MAX_BYTES, 0))
            files.close(descriptor)
            raise LockHeld(owner) from None
        except BaseException:
            _remove_if_empty(path, descriptor, files)
            files.close(descriptor)
            raise
        files.close(descriptor)  # the file was removed before we had locked it
    raise LockHeld(f"other processes in turn ({path} keeps being created and removed)")


def _lock(path: Path, descriptor: int, files: FileSystem) -> None:
    try:
        files.lock(descriptor)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _note_no_locks(path.parent)


@functools.cache
def _note_no_locks(folder: Path) -> None:
    """Said once of each folder."""
    notices.notify(
        f"the disk of {folder} does not support file locks: let only one process at a time write"
        " there"
    )


def _remove_if_empty(path: Path, descriptor: int, files: FileSystem) -> None:
    """Remove a file that was made to be locked, unless another process has locked it by now."""
    with suppress(OSError):
        files.lock(descriptor)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and not status.st_size and is_at(path, descriptor):
            files.unlink(path)


def close_locked(path: Path, descriptor: int, files: FileSystem, *, remove: bool) -> None:
    """Release a lock; `remove` also removes its file."""
    try:
        if remove and os.name != "nt":  # while we still hold the lock
            files.unlink(path)
    finally:
        files.close(descriptor)
    if remove and os.name == "nt":  # an open file cannot be removed there
        files.unlink(path)


class FileLock:
    """A lock with a file of its own, which names the owner and is removed on release.

    A context manager. Other users see the file as far as `mode` lets them. Raises LockHeld where
    another process has it, and OSError.
    """

    def __init__(self, path: Path, files: FileSystem, mode: int = 0o666) -> None:
        self.path = path
        self._files = files
        self._descriptor: int | None = open_locked(path, files, to_write=False, mode=mode)
        try:
            self._write_owner(self._descriptor)
        except OSError:
            pass  # on a full disk, or another's file: it still locks, without naming the owner
        except BaseException:
            self.release()
            raise

    def _write_owner(self, descriptor: int) -> None:
        data = jsonl.encode([this_process()])[0]
        self._files.truncate(descriptor, 0)
        write_all(self._files, descriptor, data, 0)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def fileno(self) -> int | None:
        """The open file's descriptor, until `release`: a child that inherits it holds the lock."""
        return self._descriptor

    def release(self) -> None:
        """Release the lock; calling it again does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                close_locked(self.path, descriptor, self._files, remove=True)


def acquire(
    path: Path,
    files: FileSystem,
    *,
    on_wait: Callable[[LockHeld], None] | None = None,
    timeout: float | None = None,
) -> FileLock:
    """Take the lock of this file, waiting while another process has it.

    `on_wait` is called once, when the wait begins, with the error that names the owner. Raises
    LockHeld after `timeout` seconds (None: wait for ever), and OSError.
    """
    started, notified = time.monotonic(), False
    while True:
        try:
            return FileLock(path, files)
        except LockHeld as held:
            if timeout is not None and time.monotonic() - started > timeout:
                raise
            if on_wait is not None and not notified:
                on_wait(held)
            notified = True
        time.sleep(_POLL_S)


def hold(
    target: Path,
    files: FileSystem,
    *,
    suffix: str = ".busy",
    on_wait: Callable[[LockHeld], None] | None = None,
    timeout: float | None = None,
) -> FileLock:
    """Take the lock that says who writes a file; see `acquire`.

    Raises OutputError, which names the process that has the lock after `timeout` seconds.
    """
    path = lock_path(target, suffix)
    try:
        return acquire(path, files, on_wait=on_wait, timeout=timeout)
    except LockHeld as held:
        raise being_written(target, held) from None
    except OSError as error:
        raise cannot_write(target, error) from error


def lock_path(target: Path, suffix: str = ".busy") -> Path:
    """The lock of a file that is written: `.NAME` + `suffix` beside it."""
    real = Path(os.path.realpath(target))
    return real.with_name(f".{real.name}{suffix}")


def being_written(target: Path, held: LockHeld) -> OutputError:
    """The error for a file that another process is writing."""
    return OutputError(
        f"{target} is being written by {held.owner}; wait until it has finished, or stop it"
    )


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise OSError(errno.EINVAL, f"{path} is {what}, not created by edgesppo; remove it")


def _owner(data: bytes) -> str:
    """The process named by the last event that has a pid."""
    pid, host = None, None
    for line in jsonl.read_valid(data):
        if "pid" in line.event:
            pid, host = line.event["pid"], line.event.get("host")
    return f"process {pid} on {str(host)[:_SHOWN]}" if type(pid) is int else "another process"
