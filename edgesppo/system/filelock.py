"""Owns the lock that lets one process at a time work on something: an open, locked file.

The system frees it when its process ends, however that ends, so a lock is never stale. Knows
nothing of what is locked.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgesppo.system import jsonl
from edgesppo.system.fs import write_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from edgesppo.system.fs import FileSystem

_ATTEMPTS = 100
_POLL_S = 0.1
_MAX_BYTES = 64 << 20


class LockHeld(Exception):
    """Another process has the lock; `owner` says which, for people."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


def me() -> dict[str, Any]:
    """What an event says of the process that writes it, for `take` to name it elsewhere."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def take(path: Path, files: FileSystem, mode: int = 0o666) -> int:
    """Open a file, be it new or not, and lock it; it is ours until it is closed.

    Raises Held, and OSError, also for what is no plain file, such as a link.
    """
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            _check_plain(path.lstat().st_mode)
        descriptor = files.open_or_create(path, mode)
        try:
            _check_plain(os.fstat(descriptor).st_mode)
            files.lock(descriptor)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            owner = _owner(files.read(descriptor, _MAX_BYTES, 0))
            files.close(descriptor)
            raise LockHeld(owner) from None
        except BaseException:
            files.close(descriptor)
            if path.lstat().st_size == 0:  # no other's: that would have been locked
                files.unlink(path)
            raise
        files.close(descriptor)  # it was removed before the lock was ours
    raise LockHeld(f"other processes, by turns ({path} comes and goes)")


def drop(path: Path, descriptor: int, files: FileSystem, *, remove: bool) -> None:
    """Give a lock back; with `remove` its file goes, too."""
    try:
        if remove and os.name != "nt":  # while it is still ours
            files.unlink(path)
    finally:
        files.close(descriptor)
    if remove and os.name == "nt":  # an open file cannot be removed there
        files.unlink(path)


class FileLock:
    """A lock with a file of its own, which names its owner and goes with it; a context manager."""

    def __init__(self, path: Path, files: FileSystem) -> None:
        self.path = path
        self._files = files
        self._descriptor: int | None = take(path, files, 0o600)
        try:
            self._sign(self._descriptor)
        except OSError:
            pass  # on a full disk it locks all the same, without a name
        except BaseException:
            self.release()
            raise

    def _sign(self, descriptor: int) -> None:
        data = jsonl.encode([me()])[0]
        self._files.truncate(descriptor, 0)
        write_all(self._files, descriptor, data, 0)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give it back; harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                drop(self.path, descriptor, self._files, remove=True)


def acquire(
    path: Path,
    files: FileSystem,
    *,
    on_wait: Callable[[LockHeld], None] | None = None,
    timeout: float | None = None,
) -> FileLock:
    """Take the lock with this file, once no other process has it.

    `on_wait` hears once who has it. Raises Held after `timeout` seconds, and OSError.
    """
    started, told = time.monotonic(), False
    while True:
        try:
            return FileLock(path, files)
        except LockHeld as held:
            if timeout is not None and time.monotonic() - started > timeout:
                raise
            if on_wait is not None and not told:
                on_wait(held)
            told = True
        time.sleep(_POLL_S)


def _check_plain(mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "no plain file"
        raise OSError(errno.EINVAL, f"it is {what}, so nobody of ours made it; remove it")


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _owner(data: bytes) -> str:
    """The process that the last event with a pid names."""
    owners = [line.event for line in jsonl.sound(data) if "pid" in line.event]
    if not owners:
        return "another process"
    return f"process {owners[-1]['pid']} on {owners[-1].get('host')}"
