"""Owns who is at work on the files of a commit: one process at a time, and others know which.

    HOME/models/.COMMIT.busy     held, and signed, while its files are fetched, made or removed

Knows nothing of what is done with them.
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
    """Let no other process of ours work on this commit; whoever comes second waits.

    `on_wait` hears once who is waited for. Raises OutputError.
    """
    path = layout.commit_lock_path(revision)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        told = None if on_wait is None else lambda held: on_wait(held.owner)
        return filelock.acquire(path, files, on_wait=told)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def hold_now(revisions: Collection[str], files: FileSystem) -> Iterator[None]:
    """The same for several commits without waiting. Raises Held, which says who, and OutputError.

    The first digits of a revision will do.
    """
    with ExitStack() as stack:
        for revision in sorted(set(revisions)):
            try:
                stack.callback(_take(revision, files).release)
            except OSError as error:
                if error.errno not in NO_SPACE:  # or a full disk could not be freed
                    raise cannot_write(layout.commit_lock_path(revision), error) from error
        yield


def owner(revision: str, files: FileSystem) -> str | None:
    """Who is at work on this commit, for people; None where nobody is."""
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
