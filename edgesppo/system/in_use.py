"""A file that several processes use: it is removed only when none of them does.

On Windows no lock is needed: a file that is open cannot be removed there.
"""

from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path

from edgesppo.system.fs import FileSystem, is_at


class InUse:
    """A file that `remove_unused` leaves alone, until this is released or the process ends.

    Raises FileNotFoundError where it is not there, or is about to be removed: ask again then.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
        self._finalizer = weakref.finalize(self, os.close, descriptor)
        is_going = False
        try:
            FileSystem().lock(descriptor, shared=True)
        except BlockingIOError:  # another process is removing it
            is_going = True
        except OSError:  # a disk that knows no locks
            pass
        if is_going or not is_at(_real(path), descriptor):
            self.release()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def release(self) -> None:
        """Let go of the file; harmless when repeated."""
        self._finalizer()


def remove_unused(path: Path) -> bool:
    """Remove a file that no process uses; whether it is gone. Raises OSError."""
    files = FileSystem()
    try:
        descriptor = _open(_real(path), files)
    except FileNotFoundError:
        return True
    try:
        if _is_used(descriptor, files) or not is_at(_real(path), descriptor):
            return False
        if os.name != "nt":  # while nobody can begin to use it
            files.unlink(path)
    finally:
        files.close(descriptor)
    if os.name == "nt":
        files.unlink(path)
    return True


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _open(path: Path, files: FileSystem) -> int:
    """Open a file to lock it: to write, if it may be, since some network disks ask for that."""
    try:
        return files.open(path)
    except PermissionError:
        return files.open_to_read(path)


def _is_used(descriptor: int, files: FileSystem) -> bool:
    try:
        files.lock(descriptor)
    except BlockingIOError:
        return True
    except OSError:  # a disk that knows no locks
        return False
    return False
