"""Ctrl-C can stop native work, which never outlives the call; no signal is lost meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from edgesppo.system.signals import (
    Terminated,
    raise_on_termination,
    run_interruptibly,
    shielded,
)

_BOTH = (signal.SIGINT, signal.SIGTERM)


def test_the_call_waits_for_the_work_to_end() -> None:
    done: list[int] = []
    run_interruptibly(lambda: done.append(1), lambda: None)
    assert done == [1]


def test_an_error_in_the_work_is_raised_by_the_call() -> None:
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda: 1 // 0, lambda: None)  # type: ignore[arg-type, return-value]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_an_interrupt_stops_the_work_and_leaves_no_thread() -> None:
    stopped, ended = threading.Event(), threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.wait(30)
        ended.set()

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(work, stopped.set)
    assert ended.is_set()
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_second_interrupt_does_not_leave_the_work_running() -> None:
    stopped, ended = threading.Event(), threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.wait(30)
        ended.set()

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(work, stop)
    assert ended.is_set()


def test_an_interrupt_that_leaves_a_lock_taken_does_not_deadlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python may interrupt right after the lock of an Event or a Condition was taken."""
    enter, main, ended = threading.Condition.__enter__, threading.get_ident(), []
    release = threading.Lock()
    release.acquire()

    def entered(self: threading.Condition) -> bool:
        entered = enter(self)
        if threading.get_ident() == main and not ended:
            raise KeyboardInterrupt
        return entered

    def work() -> None:
        release.acquire(timeout=30)
        ended.append(1)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "__enter__", entered)
        with pytest.raises(KeyboardInterrupt):
            run_interruptibly(work, lambda: release.release() if release.locked() else None)


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupt_while_the_thread_starts_leaves_no_work_running(
    monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    stopped, ended = threading.Event(), threading.Event()
    start, threads = threading.Thread.start, []

    def interrupted_start(thread: threading.Thread) -> None:
        threads.append(thread)
        if begun:
            start(thread)
        raise KeyboardInterrupt

    def work() -> None:
        assert stopped.wait(30)
        ended.set()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted_start)
        with pytest.raises(KeyboardInterrupt):
            run_interruptibly(work, stopped.set)
    if begun:
        assert ended.is_set()
    else:
        start(threads[0])
        threads[0].join(30)
        assert not ended.is_set(), "abandoned work ran all the same"


def test_other_threads_than_the_main_one_run_the_work_themselves() -> None:
    names: list[str] = []

    def outer() -> None:
        run_interruptibly(lambda: names.append(threading.current_thread().name), lambda: None)

    thread = threading.Thread(target=outer, name="server-worker")
    thread.start()
    thread.join()
    assert names == ["server-worker"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("numbers", [_BOTH, _BOTH[::-1]])
def test_a_ctrl_c_that_is_held_back_hides_no_sigterm(numbers: tuple[int, int]) -> None:
    @shielded()
    def send() -> None:
        for number in numbers:
            signal.raise_signal(number)

    with raise_on_termination(), pytest.raises(Terminated):
        send()
