"""Owns what SIGTERM and SIGHUP mean: what is under way is kept, then we go.

Knows nothing of what that is. Main thread only, as signals are.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDING = ("SIGTERM", "SIGHUP", "SIGBREAK")


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
