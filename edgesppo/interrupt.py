"""Owns one trick: native work that Ctrl-C can end. Knows nothing of what the work is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Windows does not wake a waiting thread for a signal, so the wait is cut into short ones.
_WAIT_S = 0.1


def run_interruptibly(work: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `work()`; when the main thread is interrupted meanwhile, call `stop()` and wait for it.

    A signal handler written in Python runs only between bytecodes of the main thread, and that
    thread is inside native code for as long as `work` takes. So there the work goes to a thread
    of its own, and the main thread waits, which a signal does interrupt. On any other thread the
    work is simply run: signals never arrive there.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    failure: list[BaseException] = []
    done = threading.Event()

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=guarded, name="edgesppo-decode", daemon=True)
    thread.start()
    _wait(done, stop)
    thread.join()
    if failure:
        raise failure[0]


def _wait(done: threading.Event, stop: Callable[[], None]) -> None:
    """Wait for an event, not the thread: an interrupted `Thread.join` takes it for ended."""
    interrupt: BaseException | None = None
    while not done.is_set():
        try:
            if interrupt is not None:
                stop()
            done.wait(_WAIT_S)
        except BaseException as error:  # a second Ctrl-C must not leave the work behind
            interrupt = error
    if interrupt is not None:
        raise interrupt
