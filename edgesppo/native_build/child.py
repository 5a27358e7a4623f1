"""Runs pip and compilers as child processes: their output is kept for a failure.

A signal only leaves a note, which is read while a child runs: nothing of ours is ever interrupted
halfway, and no KeyboardInterrupt is raised.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from edgesppo.native_build.failure import UNPACKING, CutShort, Failed, Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    Command = Sequence[str | Path]

# What pip says of its own progress, and the compiler's driver of its own.
_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")
_PACKAGE = re.compile(r"^\s*(Collecting|Building wheel for) ([\w.-]+)")
_DOING = {"Collecting": "fetching", "Building wheel for": "building"}
_KEPT_LINES = 400
_PATIENCE = 2  # seconds for a group of processes to end by itself
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")

_stopped: list[int] = []
_what = ""
_silent = False
_inherited: list[int] = []  # descriptors that children get


@contextmanager
def heeding_signals(what: str) -> Iterator[None]:
    """Take note of Ctrl-C and its like, but for those that whoever started us has us ignore.

    `what` is what they interrupt.
    """
    global _what
    _what = what
    numbers = [number for name in _SIGNALS if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in numbers}
    _stopped.clear()
    for number in numbers:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, lambda number, _: _stopped.append(number))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


@contextmanager
def inheriting(descriptor: int | None) -> Iterator[None]:
    """Children that are started meanwhile hold this file open, too."""
    if descriptor is None or sys.platform == "win32":
        yield
        return
    _inherited.append(descriptor)
    try:
        yield
    finally:
        _inherited.remove(descriptor)


def stop_heeding() -> None:
    """From now on the next signal ends this process at once, and silently."""
    for number in {signal.Signals(number) for number in _stopped}:
        signal.signal(number, signal.SIG_DFL)


def check_signals() -> None:
    """Raise Interrupted if a signal came, and say so: to clean up may take a while."""
    if _stopped:
        say(f"{_clear()}{_what} interrupted, cleaning up; the same command goes on with it")
        raise Interrupted


def say(text: str, end: str = "\n") -> None:
    """Print for people; nobody may be reading any more, or wants to."""
    if not _silent:
        with suppress(OSError):
            print(text, end=end, file=sys.stderr, flush=True)


@contextmanager
def silence() -> Iterator[None]:
    """Print nothing meanwhile."""
    global _silent
    before, _silent = _silent, True
    try:
        yield
    finally:
        _silent = before


def _clear() -> str:
    """What clears a line of progress: on a terminal each is written over the last."""
    return f"\r{'':60}\r" if sys.stderr.isatty() else ""


def run(command: Command, environment: Mapping[str, str], doing: str, done: str = "") -> list[str]:
    """Run a child to its end and give its last lines; raises Failed, Interrupted, OSError.

    Meanwhile it is shown how far it is; `done` is what it has done in the end, if that is told.
    """
    check_signals()
    started = time.monotonic()
    # A group of its own: it is stopped whole, the compiler's processes, too.
    child = subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        pass_fds=_inherited,
    )
    output = _Output(child)
    try:
        _watch(child, output, started)
        if child.returncode:
            check_signals()  # on Windows a child hears Ctrl-C, too
            raise Failed(f"while {doing}")
    except CutShort as error:
        _stop(child)
        error.lines = output.end()
        raise
    lines = output.end()
    if done:
        say(f"  {done} in {time.monotonic() - started:.0f} s")
    return lines


def _watch(child: subprocess.Popen[str], output: _Output, started: float) -> None:
    """Wait for the child's end, or a signal; tell what it is at."""
    every, end = (0.5, "") if _clear() else (15, "\n")
    due = time.monotonic()
    try:
        while True:
            due += every
            while time.monotonic() < due:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=0.1)
                    return
                check_signals()
            say(f"{_clear()}  {output.status}, {time.monotonic() - started:.0f} s", end)
    finally:
        say(_clear(), end="")


def _stop(child: subprocess.Popen[str]) -> None:
    """End the child and all of its group; what they leave in the scratch folder goes later."""
    if sys.platform == "win32":  # there are no groups there, and compilers would go on
        command = ["taskkill", "/F", "/T", "/PID", str(child.pid)]
        with suppress(OSError):
            subprocess.run(command, capture_output=True, check=False)
        child.kill()
    else:
        # First kindly: ninja has each compiler in another group, and ends those when it is told.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGTERM)
            until = time.monotonic() + _PATIENCE
            while time.monotonic() < until:
                child.poll()  # it is of its group until its end was seen
                os.killpg(child.pid, 0)
                time.sleep(0.02)
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class _Output(threading.Thread):
    """Reads what a child prints: its last lines, and what they say of its progress."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.status = "preparing"
        self._child = child
        self.start()

    def end(self) -> list[str]:
        """Its last lines. What its own children go on printing is not waited for."""
        self.join(timeout=1)
        if self._child.stdout is not None and not self.is_alive():
            self._child.stdout.close()
        return list(self.lines)

    def run(self) -> None:
        """Read until the end."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self.lines.append(line.rstrip())
            if found := _STEP.match(line):
                self.status = f"step {int(found[1])} of {int(found[2])}"
            elif found := _PACKAGE.match(line):
                self.status = f"{_DOING[found[1]]} {found[2]}"
            elif UNPACKING.match(line):
                self.status = "unpacking"
