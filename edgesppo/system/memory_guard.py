"""Owns one question, asked right before native code allocates: would the system give this much?

llama.cpp reports some failed allocations and ends the process at others; so do the libraries that
start its threads. Asking first makes an error of most of those. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import mmap
import sys

from edgesppo.errors import OutOfMemory
from edgesppo.system.units import megabytes

# What a thread's stack takes, at least and where there is no limit.
_STACK = 8 << 20
# What native code takes on the side: graphs, lists, the allocator's own reserve.
LOADING, COMPUTING = 32 << 20, 8 << 20


def require(what: str, *, memory: int, mapped: int = 0, advice: str) -> None:
    """Raises OutOfMemory unless so many bytes of memory, and of a mapped file, can be had now.

    What was asked for is given back at once, untouched: it takes some microseconds.
    """
    with contextlib.ExitStack() as held:
        try:
            for size, writable in ((memory, True), (mapped, False)):
                if size:
                    held.enter_context(_anonymous(size, writable=writable))
        except (OSError, ValueError, OverflowError, MemoryError):
            raise OutOfMemory(
                f"{what} takes up to {megabytes(memory + mapped, 0)}, and the system does not "
                f"give them to this process; {advice}"
            ) from None


def stacks(n_threads: int) -> int:
    """Bytes that the stacks of so many new threads take of the address space."""
    return n_threads * max(_STACK, _stack_limit())


def _stack_limit() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return 0 if soft == resource.RLIM_INFINITY else soft


def _anonymous(size: int, *, writable: bool) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    # Only what can be written counts as memory; what cannot, against the address space alone.
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=access)
