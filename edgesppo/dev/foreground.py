"""Runs a program in the foreground of the terminal, apart from what started it.

make reports a failure when Ctrl-C was pressed while a program of it ran, even if that program
handled it and ended well. Here Ctrl-C reaches the program alone; Ctrl-Z stops all of them.

    python -m edgesppo.dev.foreground PROGRAM ARGUMENT...
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def run(command: list[str]) -> int:
    """Run a command in the terminal's foreground; returns its exit status, 128 + N for signal N."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # taking the terminal back from the background
    here = os.getpgrp()
    child = os.fork()
    if child == 0:
        _begin(command)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda sent, _: _pass_on(child, sent))
    _give_terminal(child)
    try:
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            if _foreground() == child:
                _give_terminal(here)
            os.killpg(here, signal.SIGTSTP)  # goes on here when all are continued
            if _foreground() == here:  # and not with `bg`
                _give_terminal(child)
            os.killpg(child, signal.SIGCONT)
    finally:
        if _foreground() == child:
            _give_terminal(here)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _pass_on(child: int, number: int) -> None:
    with suppress(OSError):
        os.killpg(child, number)


def _begin(command: list[str]) -> None:
    """Become the command, in a process group of its own."""
    try:
        os.setpgid(0, 0)
        _give_terminal(os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
    finally:
        os._exit(127)


def _foreground() -> int:
    """The process group in the terminal's foreground; -1 if there is none, or no terminal."""
    try:
        return os.tcgetpgrp(0)
    except OSError:
        return -1


def _give_terminal(group: int) -> None:
    """Make a process group the terminal's foreground; the child's is made by whoever is first."""
    if group != os.getpgrp():
        with suppress(OSError):  # it has done so, or has ended
            os.setpgid(group, group)
    with suppress(OSError):  # it has ended
        os.tcsetpgrp(0, group)


def main(command: list[str]) -> None:
    """Run the command; where there is no terminal to share, in place of this program."""
    if os.name == "nt" or not os.isatty(0) or _foreground() != os.getpgrp():
        os.execvp(command[0], command)
    raise SystemExit(run(command))


if __name__ == "__main__":
    main(sys.argv[1:])
