"""The threads that compute for one context: started once, asleep between batches.

Without a pool of its own llama.cpp starts its threads anew for each batch, and ends the process
when the system has none left; with one, that is found out when the context is made. Builds with
OpenMP keep their threads by themselves and use no pool.
"""

from __future__ import annotations

import ctypes
from typing import Any

from edgesppo.errors import OutOfMemory
from edgesppo.llama.library import system_info, thread_functions
from edgesppo.system import memory_guard

# A thread that polls between batches takes a processor from the sampler, and from other programs.
_POLL = 0


class ThreadPool:
    """Up to `n_threads` threads, the caller's included. Free the context before the pools it had.

    Raises OutOfMemory when the threads cannot be started.
    """

    def __init__(self, n_threads: int) -> None:
        memory_guard.require_threads(n_threads - 1)
        functions = thread_functions()
        assert functions is not None, "callers ask `can_keep_threads` first"
        params = functions.params_default(n_threads)
        params.poll = _POLL
        self.n_threads, self._functions = n_threads, functions
        self._handle: Any = functions.new(ctypes.byref(params))
        if not self._handle:
            raise OutOfMemory(f"llama.cpp cannot start {n_threads} threads; close other programs")

    def attach(self, context: Any) -> None:
        """Have a native context compute with these threads from now on."""
        self._functions.attach(context, self._handle, self._handle)

    def close(self) -> None:
        """End the threads; the context that used them is gone."""
        handle, self._handle = self._handle, None
        if handle:
            self._functions.free(handle)


def can_keep_threads(n_threads: int) -> bool:
    """Whether a pool makes sense for so many threads with this build."""
    return n_threads > 1 and "OPENMP = 1" not in system_info() and thread_functions() is not None
