"""Owns what Ctrl-C means in a chat: it stops an answer; twice within a second, it leaves.

Knows nothing of chats or of terminals. Main thread only, as signals are.
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
    """Ctrl-C while an answer is made, and how long ago the last one was."""

    def __init__(self) -> None:
        self.leaving = False  # it was pressed twice
        self._at = -TWICE_S
        self._held = False
        self._stopped = False

    def pressed(self) -> None:
        """Take note of one; the second within a second means to leave."""
        now = time.monotonic()
        self.leaving = self.leaving or now - self._at < TWICE_S
        self._at = now

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """The first raises KeyboardInterrupt; those after it are only noted."""
        self._stopped = self._held = False
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.SIG_IGN:  # as whoever started us has it
            signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What is written now is written whole: an interrupt comes after it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._stopped:
            raise KeyboardInterrupt

    def _interrupt(self, *_: Any) -> None:
        self.pressed()
        if self._stopped:
            return
        self._stopped = True
        if not self._held:
            raise KeyboardInterrupt


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Ctrl-C is for another program on this terminal; that one starts with its usual meaning."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
