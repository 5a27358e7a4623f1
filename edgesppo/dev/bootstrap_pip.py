"""Runs the set-up's child processes: their output kept for a failure, and pip on its own settings.

A signal only leaves a note, which is read while a child runs: nothing of ours is ever interrupted
halfway, and no KeyboardInterrupt is raised.
"""

from __future__ import annotations

import ast
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    Command = Sequence[str | Path]

# What pip says of its own progress, and the compiler's driver of its own.
_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\]")
_PACKAGE = re.compile(r"^\s*(?:Collecting|Building wheel for) ([\w.-]+)")
_UNPACKING = re.compile(r"^\s*Installing collected packages")
# pip's own settings that count here: how packages are reached, and which are allowed. All others,
# as `user`, `target` or `only-binary`, are about installations that are not this one.
_SETTINGS = (
    *("index-url", "extra-index-url", "no-index", "find-links", "prefer-binary"),
    *("proxy", "cert", "client-cert", "trusted-host", "keyring-provider"),
    *("timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir"),
    *("constraint", "build-constraint", "uploaded-prior-to"),
)
_SETTING = re.compile(r"^(global|install)\.([a-z-]+)=(.+)$")
_NO_VERSION = ("No matching distribution found", "conflicting dependencies")
_KEPT_LINES = 400
_PATIENCE = 2  # seconds for a group of processes to end by itself
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")

_stopped: list[int] = []


class SetupError(Exception):
    """The set-up cannot go on; the text says what was found and what to do."""


class CutShort(Exception):
    """Something did not come to its end; `lines` are the last ones that a child printed."""

    lines: Sequence[str] = ()

    def changed_packages(self) -> bool:
        """Whether pip had downloaded all it needs, and had begun to install it."""
        return any(map(_UNPACKING.match, self.lines))


class Interrupted(CutShort):
    """Somebody wants the set-up to end."""


class Failed(CutShort):
    """A child failed at what its text says."""

    def reason(self) -> str:
        """Its first line that calls itself an error, else its last lines, as one."""
        told = [line.strip() for line in self.lines if line.strip()]
        errors = [line for line in told if line.startswith("ERROR")]
        return " ".join(errors[:1] or told[-4:])

    def has_no_wheel_of(self, packages: Sequence[str]) -> bool:
        """Whether pip found no version of one of these packages that it may install."""
        errors = "\n".join(self.lines).partition("ERROR: ")[2]
        return any(sign in errors for sign in _NO_VERSION) and any(p in errors for p in packages)


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Take note of Ctrl-C and its like, but for those that whoever started us has us ignore."""
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


def stop_heeding() -> None:
    """From now on the next signal ends this process at once, and silently."""
    for number in {signal.Signals(number) for number in _stopped}:
        signal.signal(number, signal.SIG_DFL)


def check_signals() -> None:
    """Raise Interrupted if a signal came, and say so: to clean up may take a while."""
    if _stopped:
        say(f"{_clear()}set-up interrupted; the same command goes on with it")
        raise Interrupted


def say(text: str, end: str = "\n") -> None:
    """Print for people; nobody may be reading any more."""
    with suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)


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
    if sys.platform == "win32":
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
                self.status = found[1]
            elif _UNPACKING.match(line):
                self.status = "unpacking"


class Pip:
    """The pip of a virtual environment; what it writes meanwhile is kept in a folder of ours."""

    def __init__(self, python: Path, scratch: Path) -> None:
        self.scratch = scratch
        self._command = [str(python), "-m", "pip"]
        self._environment = clean_environment(scratch)
        self._environment.update(self._settings())
        self._environment.update(PIP_CONFIG_FILE=os.devnull, PIP_NO_INPUT="1")
        self._environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PROGRESS_BAR="off")

    def run(self, *arguments: str | Path, doing: str, done: str = "") -> None:
        """Run `pip ARGUMENTS`; raises what `run` does."""
        run([*self._command, *arguments], self._environment, doing, done)

    def _settings(self) -> dict[str, str]:
        """The settings that count, as environment variables: pip's files hold others, too."""
        # So many -v: a setting may have it quiet, and then it lists nothing.
        command = [*self._command, "-vvv", "config", "list"]
        files = {k: v for k, v in os.environ.items() if k == "PIP_CONFIG_FILE"}
        lines: list[str] = []
        try:
            lines = run(command, self._environment | files, "reading pip's configuration")
        except Failed as error:
            say(f"Going on without pip's configuration, which it cannot read: {error.reason()}")
        found = sorted(match.groups() for match in map(_SETTING.match, lines) if match)
        named = {f"PIP_{name.replace('-', '_').upper()}": name for name in _SETTINGS}
        values = {name: str(ast.literal_eval(value)) for _, name, value in found}
        settings = {variable: values[name] for variable, name in named.items() if name in values}
        return settings | {k: v for k, v in os.environ.items() if k in named}


def clean_environment(scratch: Path) -> dict[str, str]:
    """Our variables without those that change what a Python finds or pip does."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    return kept | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
