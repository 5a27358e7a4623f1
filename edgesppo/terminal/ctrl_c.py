"""Ctrl-C while an answer is generated: once stops the answer, twice within a second quits.

For the main thread only: Python delivers signals nowhere else.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TWICE_S = 1.0


class CtrlC:
    """Counts Ctrl-C, and turns the first one of an answer into KeyboardInterrupt."""

    def __init__(self) -> None:
        self.leaving = False  # whether it was pressed twice within TWICE_S
        self._at = -TWICE_S  # when it was last pressed, by time.monotonic()
        self._deferring = False
        self._stopped = False

    def pressed(self) -> None:
        """Record one Ctrl-C; a second one within TWICE_S sets `leaving`."""
        now = time.monotonic()
        self.leaving = self.leaving or now - self._at < TWICE_S
        self._at = now

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """In the block, the first Ctrl-C raises KeyboardInterrupt; later ones are only recorded."""
        self._stopped = self._deferring = False
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.SIG_IGN:  # the parent process wants it ignored
            signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise the KeyboardInterrupt after the block, so that what it writes is complete."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._stopped:
            raise KeyboardInterrupt

    def _interrupt(self, *_: Any) -> None:
        self.pressed()
        if self._stopped:
            return
        self._stopped = True
        if not self._deferring:
            raise KeyboardInterrupt


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Ignore Ctrl-C while a child process has the terminal; the child gets the default handler."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
