"""What Ctrl-C, SIGTERM and SIGHUP do while work is under way.

Ctrl-C stops native work while it runs, and work in steps between two of them. SIGTERM and SIGHUP
raise an exception, so that unfinished work can be saved.

Python raises KeyboardInterrupt between any two bytecodes of the main thread, so also right after a
lock was taken, with no code left to release it. A lock that other threads wait for must therefore
never be taken where Ctrl-C can interrupt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

from edgesppo.errors import OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Windows does not wake a waiting thread for a signal, so it waits in short intervals.
_WAIT_S = 0.1
_TERMINATING = ("SIGTERM", "SIGHUP", "SIGBREAK")


def run_interruptibly(work: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `work()`; if the main thread is interrupted, call `stop()` and wait for the work to end.

    A signal handler written in Python runs only between bytecodes of the main thread, and that
    thread would be inside native code for as long as `work` takes. So there the work runs in a
    thread of its own while the main thread waits, which a signal does interrupt. Any other thread
    runs the work itself: signals never arrive there. Raises what `work` raises, the interrupt,
    and OutOfMemory where no thread can be started.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    job = _Job(work)
    thread = threading.Thread(target=job.run, name="edgesppo-decode", daemon=True)
    interrupt: BaseException | None = None
    try:
        _start(thread)
        while not job.finished:
            job.wait()
    except BaseException as error:
        interrupt = error
    if interrupt is not None:
        if job.abandon():
            raise interrupt  # the work had not begun, and never will
        _stop_and_wait(job, stop)
        raise interrupt
    thread.join()
    if job.failure is not None:
        raise job.failure


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:  # the system refused to create a thread
        raise OutOfMemory(
            "the system lets this process start no more threads: it is out of memory, or at its "
            "limit on threads; close other programs and try again"
        ) from None


def _stop_and_wait(job: _Job, stop: Callable[[], None]) -> None:
    """Stop the work and wait until it has ended, even if interrupted again."""
    while not job.finished:
        try:
            stop()
            # Not `Thread.join`: once interrupted, it considers the thread ended.
            job.wait()
        except BaseException:  # a second Ctrl-C must not leave the work running
            continue


class _Job:
    """Work that runs to its end or, if it is abandoned before it begins, never runs."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._claim = threading.Lock()
        # Not an Event: an interrupt may leave its inner lock taken, and it could not be set.
        self._running = threading.Lock()
        self._running.acquire()
        self.finished = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Do the work, unless it was abandoned."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._work()
        except BaseException as error:
            self.failure = error
        finally:
            self.finished = True
            self._running.release()

    def wait(self) -> None:
        """Wait for the work to end, for _WAIT_S seconds at most."""
        self._running.acquire(timeout=_WAIT_S)

    def abandon(self) -> bool:
        """Keep the work from beginning; returns False if it has begun already."""
        return self._claim.acquire(blocking=False)


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Hold back Ctrl-C within the block until its next safe point: a call of the yielded function.

    So are SIGTERM and SIGHUP where they have a handler. The end of the block is a safe point, too.
    Other threads than the main one, and programs that ignore these signals, see no difference.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    numbers: list[int] = [signal.SIGINT, *_terminating()]
    handlers = {number: signal.getsignal(number) for number in numbers}
    previous = {number: handler for number, handler in handlers.items() if callable(handler)}
    pending: list[int] = []

    def hold(number: int, _frame: object) -> None:
        pending.append(number)

    def deliver() -> None:
        while pending:  # an end first: what handles the Ctrl-C may go on
            number = max(pending, key=lambda number: number != signal.SIGINT)
            pending.remove(number)
            previous[number](number, None)

    for number in previous:
        signal.signal(number, hold)
    try:
        yield deliver
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is hold:  # else its handler has run, and set another
                signal.signal(number, handler)
    deliver()


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Let the block finish: a Ctrl-C within it is delivered afterwards."""
    with deferred_interrupts():
        yield


class Terminated(SystemExit):
    """The process was told to end by a signal; the exit code is 128 + the signal's number.

    Like KeyboardInterrupt it may be given a text, which says how to resume.
    """

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(self.exit_code)
        self.args = ()


@contextlib.contextmanager
def raise_on_termination() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise Terminated in the main thread while the block runs.

    Callers save their work and end. A signal that was ignored before, as under `nohup`, stays so.
    Does nothing in other threads, which can set no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in _terminating() if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _on_termination) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kept_termination() -> Iterator[None]:
    """Put the handlers of SIGTERM and SIGHUP back that the block replaces, as a library may."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which can set none
        return
    before = {number: signal.getsignal(number) for number in _terminating()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that Python does not know
                signal.signal(number, handler)


def _on_termination(number: int, _frame: object) -> None:
    for each in _terminating():  # a second signal must not interrupt the saving
        signal.signal(each, signal.SIG_IGN)
    if number == getattr(signal, "SIGHUP", None):
        detach_terminal()
    raise Terminated(number)


def _terminating() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _TERMINATING if hasattr(signal, name)]


def detach_terminal() -> None:
    """Redirect standard input and output to the null device: writes to a lost terminal fail."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(descriptor) or descriptor == 0:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, descriptor)
                os.close(null)
