"""Locks on the files of a commit, so that one process at a time changes them.

HOME/models/.COMMIT.busy     held while files are fetched, converted or removed; names its owner
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from edgesppo.store import layout
from edgesppo.system import filelock
from edgesppo.system.fs import NO_SPACE, cannot_write

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

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
def hold_now(revisions: Collection[str], files: FileSystem) -> Iterator[None]:
    """Lock several commits without waiting. Raises LockHeld, which names the owner; OutputError.

    A revision may be abbreviated to its first digits.
    """
    with ExitStack() as stack:
        for revision in sorted(set(revisions)):
            try:
                stack.callback(_take(revision, files).release)
            except OSError as error:
                if error.errno not in NO_SPACE:  # a full disk must not prevent removing files
                    raise cannot_write(layout.commit_lock_path(revision), error) from error
        yield


def owner(revision: str, files: FileSystem) -> str | None:
    """The process that holds this commit's lock, in words; None if none does."""
    try:
        if layout.commit_lock_path(revision).exists():
            _take(revision, files).release()
    except filelock.LockHeld as held:
        return held.owner
    except OSError:
        pass
    return None


def _take(revision: str, files: FileSystem) -> filelock.FileLock:
    path = layout.commit_lock_path(revision)
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path, files)
