"""What Ctrl-C, SIGTERM and SIGHUP do while work is under way.

Ctrl-C ends native work, and work in steps between two of them; SIGTERM and SIGHUP become an
exception, so that what is under way is kept.

Python raises KeyboardInterrupt between any two of the main thread's bytecodes, and so also where a
lock was just taken and nobody is left to release it: what other threads wait for must not be held
by what Ctrl-C can reach.
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

# Windows does not wake a waiting thread for a signal, so the wait is cut into short ones.
_WAIT_S = 0.1
_ENDING = ("SIGTERM", "SIGHUP", "SIGBREAK")


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
    job = _Job(work)
    thread = threading.Thread(target=job.run, name="edgesppo-decode", daemon=True)
    interrupt: BaseException | None = None
    try:
        _start(thread)
        while not job.ended:
            job.wait()
    except BaseException as error:
        interrupt = error
    if interrupt is not None:
        if job.abandon():
            raise interrupt  # it had not begun, and now never will
        _outlast(job, stop)
        raise interrupt
    thread.join()
    if job.failure is not None:
        raise job.failure


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:  # what Python says of a thread that the system refuses
        raise OutOfMemory(
            "the system lets this process start no more threads: its memory, or a limit on "
            "threads, is used up; end other programs"
        ) from None


def _outlast(job: _Job, stop: Callable[[], None]) -> None:
    """Stop the work and wait for its end, whatever else interrupts meanwhile."""
    while not job.ended:
        try:
            stop()
            # Not for the thread: an interrupted `Thread.join` takes it for ended.
            job.wait()
        except BaseException:  # a second Ctrl-C must not leave the work behind
            continue


class _Job:
    """Work that either runs to its end or, if abandoned before it began, never runs."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._claim = threading.Lock()
        # Not an Event: an interrupt may leave its inner lock taken, and nobody could set it.
        self._going_on = threading.Lock()
        self._going_on.acquire()
        self.ended = False
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
            self.ended = True
            self._going_on.release()

    def wait(self) -> None:
        """Wait for the end, a short time at most."""
        self._going_on.acquire(timeout=_WAIT_S)

    def abandon(self) -> bool:
        """Keep the work from beginning; False if it has begun."""
        return self._claim.acquire(blocking=False)


@contextlib.contextmanager
def between_steps() -> Iterator[Callable[[], None]]:
    """While the block runs, Ctrl-C waits for the next call of what is given, or the block's end.

    Off the main thread, and where Ctrl-C is ignored, nothing changes.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield lambda: None
        return
    pressed: list[int] = []

    def look() -> None:
        if pressed:
            usual(pressed.pop(), None)

    signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        yield look
    finally:
        signal.signal(signal.SIGINT, usual)
    look()


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """What is done in the block is done whole: Ctrl-C comes after it."""
    with between_steps():
        yield


class Ended(SystemExit):
    """The system, or whoever runs it, wants us to end: 128 and the signal's number."""


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Ended in the main thread: what is under way is kept, then we go.

    One that whoever started us has us ignore, as `nohup` does, stays ignored.
    """
    known = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    numbers = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> None:
    for name in _ENDING:  # once is enough, and the second must not break the saving
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if number == getattr(signal, "SIGHUP", None):
        lose_terminal()
    raise Ended(128 + number)


def lose_terminal() -> None:
    """The terminal is gone: whatever is written to it goes nowhere, instead of failing."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(descriptor) or descriptor == 0:
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
