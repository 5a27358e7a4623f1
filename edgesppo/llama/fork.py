"""os.fork(): what the parent loaded is neither used nor freed in the child.

Only the thread that forks exists in the child, so the locks and threads that native objects rely
on may never come back. A child that wants a model loads its own. That works unless llama.cpp was
built with OpenMP and has computed before: libgomp's threads do not survive a fork, and the child
would hang or be aborted.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from edgesppo.errors import Closed, NativeError


class Tracked(Protocol):
    """An object that holds something native, or a lock that guards it."""

    def after_fork(self, parent: int) -> None:
        """Let go, in a child of the process `parent`: nothing native may be called."""


class ForkSafeLock:
    """A lock, for `with`, that is free again in a forked child, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        track(self)

    def after_fork(self, parent: int) -> None:  # noqa: ARG002
        """Take a new lock: nobody in the child could free the old one."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_tracked: weakref.WeakSet[Tracked] = weakref.WeakSet()
_computed = False  # in this process
_parent_computed = False  # before this process was forked from it


def track(tracked: Tracked) -> None:
    """Have `after_fork` called in every forked child."""
    _tracked.add(tracked)


def note_computation() -> None:
    """Note that the library computes in this process from now on."""
    global _computed
    _computed = True


def check_library(system_info: str) -> None:
    """Raise NativeError if this process was forked from one whose OpenMP threads are lost."""
    if _parent_computed and "OPENMP = 1" in system_info:
        raise NativeError(
            "this process was forked from one that had already computed with llama.cpp, and this"
            " build of llama.cpp uses OpenMP, whose threads do not survive a fork; start the"
            ' process with multiprocessing\'s "spawn", fork before the first answer, or use a build'
            " without OpenMP"
        )


def closed_by_fork(parent: int) -> Closed:
    """The error for using what was loaded in the process `parent` in a child of it."""
    return Closed(
        f"the model was loaded in process {parent}, from which this process {os.getpid()} was"
        " forked; a model cannot be used after a fork: load it in this process"
    )


def _let_go() -> None:
    global _computed, _parent_computed
    _parent_computed |= _computed
    _computed = False
    for tracked in list(_tracked):
        tracked.after_fork(os.getppid())
    _tracked.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
