"""Owns how it looks when the network fails and is tried again: one line, redrawn in place.

Away from a terminal every retry is a line of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from typing import TYPE_CHECKING

from edgesppo.cli import aside
from edgesppo.hub.retry import Retry, heard_by
from edgesppo.system.sanitize import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Notice:
    """The line; it goes when something has come, or when all is over."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = False
        self._one_at_a_time = threading.Lock()  # files are fetched side by side

    def heard(self, retry: Retry | None) -> None:
        with self._one_at_a_time:
            if retry is None:
                self._erase()
            elif self._terminal:
                self._draw(_worded(retry))
            else:
                aside(_worded(retry))

    def close(self) -> None:
        with self._one_at_a_time:
            self._erase()

    def _erase(self) -> None:
        if self._shown:
            self._draw("")
            self._shown = False

    def _draw(self, line: str) -> None:
        """The cursor goes back to where whatever comes next begins."""
        room = shutil.get_terminal_size().columns - 1  # or every redraw would begin a new line
        aside("\r" + line[:room].ljust(room) + "\r", newline=False)
        self._shown = True


def _worded(retry: Retry) -> str:
    """What a terminal's edge may cut stands last."""
    return printable(
        f"Trying again in {retry.wait:.0f} s (attempt {retry.attempt} of {retry.attempts}):"
        f" {retry.reason}: {retry.what}"
    )


@contextlib.contextmanager
def retries_told() -> Iterator[None]:
    """While the block runs, it is said when the network fails and is tried again."""
    notice = _Notice()
    try:
        with heard_by(notice.heard):
            yield
    finally:
        notice.close()
