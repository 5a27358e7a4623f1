"""A folder that one process at a time builds in: its lock, and a scratch folder.

LOCK        held by the one that is at work; its children hold it, too, so that nobody removes
            what is still being written if it was killed and they go on
SCRATCH     what pip and the compiler write meanwhile, removed in the end
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgesppo.native_build import child
from edgesppo.native_build.failure import Interrupted
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POLL_S = 0.2


@contextmanager
def alone(lock: Path, scratch: Path, other: str) -> Iterator[None]:
    """While no other process has the lock; with an empty scratch folder.

    `other` says what is waited for. Raises Interrupted, OSError.
    """
    held = _acquire(lock, other)
    try:
        with child.inheriting(held.fileno()):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(exist_ok=True)
            yield
    except Interrupted:
        child.stop_heeding()  # some disks take many seconds to remove what a compilation leaves
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        held.release()


def _acquire(path: Path, other: str) -> filelock.FileLock:
    """The lock, once no other process has it."""
    told: set[str] = set()
    while True:
        try:
            return filelock.acquire(path, FileSystem(), timeout=_POLL_S)
        except filelock.LockHeld as held:
            if held.owner not in told:
                child.say(f"Waiting for {other} ({held.owner})")
            told.add(held.owner)
        child.check_signals()


def write_fault(folder: Path, advice: str) -> str | None:
    """What keeps us from writing into a folder, which is made if need be."""
    probe = folder / f".edgesppo-probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        return None
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror or error}; {advice}"
