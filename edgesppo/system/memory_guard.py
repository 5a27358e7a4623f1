"""Check, right before native code allocates memory, that the system would provide it.

llama.cpp reports some failed allocations and ends the process at others; so do the libraries that
start its threads. Asking first turns most of those into an error.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys

from edgesppo.errors import OutOfMemory
from edgesppo.system.units import megabytes

if sys.platform != "win32":
    import resource

# Bytes of a thread's stack: the minimum, and the default where no limit is set.
_STACK = 8 << 20
# Bytes that native code takes besides: graphs, lists, the allocator's own reserve.
LOADING_RESERVE, _COMPUTING_RESERVE = 32 << 20, 8 << 20


def require(what: str, *, memory: int, mapped: int = 0, advice: str) -> None:
    """Raise OutOfMemory unless these bytes, of memory and of a mapped file, are available now.

    `what` needs them, in the message, and `advice` ends it. The bytes are reserved and released
    at once, untouched, which takes some microseconds.
    """
    with contextlib.ExitStack() as stack:
        try:
            for size, writable in ((memory, True), (mapped, False)):
                if size:
                    stack.enter_context(_anonymous(size, writable=writable))
        except (OSError, ValueError, OverflowError, MemoryError):
            raise OutOfMemory(
                f"{what} takes up to {megabytes(memory + mapped, 0)}, which the system does not "
                f"let this process have; {advice}"
            ) from None


def return_freed() -> None:
    """Give the system back what native code has freed: glibc, alone, keeps it for later."""
    if sys.platform == "linux":
        import ctypes  # late: it takes longer than all else here

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def shortage(error: BaseException) -> str | None:
    """What the system did not provide, and what to do; None if an error has another cause."""
    known = (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or (isinstance(error, ImportError | OSError) and _says_no_memory(error))
    )
    if known:
        return (
            "the system does not let this process have the memory that it needs; close other "
            "programs, or raise the limit (ulimit -v)"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return (
            "the system lets this process have no more threads; close other programs, or raise "
            "the limits (ulimit -u, ulimit -v)"
        )
    return None


def _says_no_memory(error: BaseException) -> bool:
    """Whether a library could not be loaded for lack of memory, as only the text says."""
    signs = (os.strerror(errno.ENOMEM), "failed to map segment from shared object")
    return any(sign in str(error) for sign in signs)


def require_threads(n_threads: int) -> None:
    """Raise OutOfMemory unless `n_threads` threads can be started now, to compute."""
    require(
        "starting threads to compute",
        memory=thread_bytes(n_threads),
        mapped=_arena_bytes(n_threads),
        advice="close other programs",
    )


def require_reserve(what: str) -> None:
    """Raise OutOfMemory if a limit of this process leaves native code too little for `what`.

    For calls that take little, and that end the process where they do not get it.
    """
    if is_limited():
        require(what, memory=_COMPUTING_RESERVE, advice="raise the limit (ulimit -v)")


def is_limited() -> bool:
    """Whether this process may use only so much address space, as with `ulimit -v`."""
    if sys.platform == "win32":
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def thread_bytes(n_threads: int) -> int:
    """Bytes that `n_threads` new threads, which compute, take: their stacks, and a reserve."""
    return n_threads * max(_STACK, _stack_limit()) + _COMPUTING_RESERVE


def _arena_bytes(n_threads: int) -> int:
    """Bytes of address space that glibc's malloc may reserve when new threads first use it.

    64 MiB for each thread, and as much again for a moment, to align the last.
    """
    is_large = sys.platform == "linux" and sys.maxsize > 1 << 32
    return (n_threads + 1) * (64 << 20) if is_large else 0


def _stack_limit() -> int:
    if sys.platform == "win32":
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return 0 if soft == resource.RLIM_INFINITY else soft


def _anonymous(size: int, *, writable: bool) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    # Only writable pages count as memory; the others count against the address space alone.
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=access)
