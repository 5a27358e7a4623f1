"""Locks on the files of the store, so that one process at a time changes them.

HOME/models/.COMMIT.busy           on the files of a commit: held while they are fetched,
                                   converted or removed; names its owner
HOME/converted/.COPY.gguf.busy     on a converted copy, see converted.py
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from edgesppo.store import layout
from edgesppo.system import filelock
from edgesppo.system.fs import NO_SPACE, cannot_write

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from edgesppo.system.fs import FileSystem


def hold(
    revision: str, on_wait: Callable[[str], None] | None, files: FileSystem
) -> filelock.FileLock:
    """Lock this commit; waits for another edgesppo process that holds it.

    `on_wait` is called once with that process's name. Raises OutputError.
    """
    path = layout.commit_lock_path(revision)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        notify = None if on_wait is None else lambda held: on_wait(held.owner)
        return filelock.acquire(path, files, on_wait=notify)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def hold_now(locks: Collection[Path], files: FileSystem) -> Iterator[None]:
    """Take several locks without waiting. Raises LockHeld, which names the owner; OutputError."""
    with ExitStack() as stack:
        for path in sorted(set(locks)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.callback(filelock.FileLock(path, files).release)
            except OSError as error:
                if error.errno not in NO_SPACE:  # a full disk must not prevent removing files
                    raise cannot_write(path, error) from error
        yield


def owner(lock: Path, files: FileSystem) -> str | None:
    """The process that holds this lock, in words; None if none does."""
    try:
        if lock.exists():
            filelock.FileLock(lock, files).release()
    except filelock.LockHeld as held:
        return held.owner
    except OSError:
        pass
    return None
