"""The progress of many rows on standard error: rows, tokens per second, time left."""

from __future__ import annotations

import time
from collections import deque

from edgesppo.system.units import duration
from edgesppo.terminal.output import StatusLine

_REDRAW_S, _PLAIN_S = 0.2, 30.0  # between two lines: on a terminal, and elsewhere
_WINDOW_S = 30.0  # over which tokens per second are measured


class RowProgress:
    """A line that says how many rows are done, how fast tokens come, and how long it will take.

    The time left is that of the rows so far, without those that an earlier run did.
    """

    def __init__(self, rows: int, done: int = 0, noun: str = "rows") -> None:
        self._rows = rows
        self._resumed = done
        self._noun = noun
        self._line = StatusLine()
        self._pause = _REDRAW_S if self._line.on_terminal else _PLAIN_S
        self._started = time.monotonic()
        self._next = self._started + self._pause
        self._seen: deque[tuple[float, int]] = deque([(self._started, 0)])

    def update(self, done: int, tokens: int, errors: int = 0) -> None:
        """Show that so many rows are done, with so many tokens generated in this run."""
        now = time.monotonic()
        if now < self._next and done < self._rows:
            return
        self._next = now + self._pause
        self._seen.append((now, tokens))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        if self._line.on_terminal or done < self._rows:
            self._line.draw(self._figures(now, done, errors))

    def close(self) -> None:
        """End the line."""
        self._line.end()

    def _figures(self, now: float, done: int, errors: int) -> str:
        parts = [f"{done:,} of {self._rows:,} {self._noun}"]
        first, before = self._seen[0]
        if now > first:
            parts.append(f"{(self._seen[-1][1] - before) / (now - first):,.1f} tokens/s")
        fresh = done - self._resumed
        if fresh > 0 and done < self._rows:
            left = (self._rows - done) * (now - self._started) / fresh
            parts.append(f"{duration(left)} left")
        if errors:
            parts.append(f"{errors:,} with errors")
        return " | ".join(parts)
