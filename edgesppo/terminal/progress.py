"""Progress on standard error: bars for work, the rate of a download, network retries.

On a terminal each is one line that is redrawn; elsewhere it is a few plain lines.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from edgesppo.hub.retry import Retry, on_retry
from edgesppo.system.conversion_progress import CHECKING, CONVERTING, HASHING, READING
from edgesppo.system.sanitize import one_line, printable
from edgesppo.system.units import duration, megabytes, size
from edgesppo.terminal.output import StatusLine, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.system.conversion_progress import Progress

_BAR = 30
_REDRAW_S = 0.1
_PLAIN_S = 30.0  # between two lines of a download where there is no terminal
_PATIENCE_S = 1.0  # shorter work before and after a conversion is not shown
_WINDOW_S = 10.0  # over which the rate of a download is measured


class Meter:
    """A progress bar: bytes done of a total, or (`in_bytes=False`) only the share done.

    The time left is estimated from the progress since the first update, because earlier progress
    was resumed, and from the time in which no other meter was updated. Nothing is drawn before
    `patience` seconds of that time have passed.
    """

    _active: Meter | None = None  # the one that was updated last

    def __init__(self, title: str, *, in_bytes: bool = True, patience: float = 0.0) -> None:
        self._title = one_line(title)
        self._in_bytes = in_bytes
        self._patience = patience
        self._base: float | None = None  # done at the first update
        self._busy = 0.0  # seconds in which no other meter was updated
        self._updated_at = 0.0
        self._drawn_at = 0.0
        self._line = StatusLine()
        self._started = False

    def update(self, done: float, total: float) -> None:
        """Show that `done` of `total` is complete."""
        now = time.perf_counter()
        if self._base is None:
            self._base = done
        elif Meter._active is self:
            self._busy += now - self._updated_at
        self._updated_at, Meter._active = now, self
        if self._busy < self._patience:
            return
        if not self._started:
            self._started = True
            if not self._line.on_terminal:
                of = f": {megabytes(total)}" if self._in_bytes else ""
                say(f"{self._title}{of} ...")
        if self._line.on_terminal and (now - self._drawn_at > _REDRAW_S or done >= total):
            self._drawn_at = now
            self._line.draw(self._bar(done, total))

    def close(self) -> None:
        """End the bar's line."""
        self._line.end()

    def _bar(self, done: float, total: float) -> str:
        share = done / total if total else 1.0
        bytes_done = f" {done / 1e6:,.1f}/{megabytes(total)}" if self._in_bytes else ""
        figures = f"{share:4.0%}{bytes_done}{self._left(done, total)}"
        width = min(_BAR, self._line.width - len(self._title) - len(figures) - 4)
        bar = f"[{'#' * int(share * width):<{width}}] " if width > 0 else ""
        return f"{self._title} {bar}{figures}"

    def _left(self, done: float, total: float) -> str:
        """The time left; empty while it cannot be estimated."""
        progress = done - (self._base or 0.0)
        if done < total and (progress <= 0 or self._busy <= 0):
            return ""
        return f" {duration((total - done) * self._busy / max(progress, 1e-9))} left"


@contextlib.contextmanager
def conversion_progress(title: str) -> Iterator[Callable[[Progress], None]]:
    """A callback for `convert(on_progress=...)` that draws a bar once it is called.

    All but converting is shown only if it takes longer than a second.
    """
    meters = {
        CHECKING: Meter("Checking the interrupted conversion", patience=_PATIENCE_S),
        CONVERTING: Meter(title),
        HASHING: Meter("Hashing the checkpoint", patience=_PATIENCE_S),
        READING: Meter("Verifying the output", patience=_PATIENCE_S),
    }
    try:
        yield lambda progress: meters[progress.stage].update(
            progress.done_bytes, progress.total_bytes
        )
    finally:
        for meter in meters.values():
            meter.close()


@contextlib.contextmanager
def tuning_progress() -> Iterator[Callable[[float], None]]:
    """A callback for `load(on_tune=...)`; nothing is drawn if nothing has to be measured."""
    with measuring("Finding the fastest settings for this machine (once)") as report:
        yield report


@contextlib.contextmanager
def measuring(title: str) -> Iterator[Callable[[float], None]]:
    """A callback that draws the share done, from 0 to 1, once it is called."""
    meter = Meter(title, in_bytes=False)
    try:
        yield lambda share: meter.update(share, 1.0)
    finally:
        meter.close()


@contextlib.contextmanager
def fetch_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback for `convert(on_fetch=...)` that draws a bar or a line for every file."""
    meters: dict[str, Meter] = {}

    def report(file: str, done: int, total: int) -> None:
        meters.setdefault(file, Meter(f"Fetching {file}")).update(done, total)

    try:
        yield report
    finally:
        for meter in meters.values():
            meter.close()


class Transfer:
    """The progress line of a download of several files: bytes, rate and time left in total."""

    def __init__(self, title: str, total: int, present: int) -> None:
        self._title = title
        self._total = total
        self._done: dict[str, int] = {}
        self._present = present  # bytes of files that were complete before
        self._line = StatusLine()
        self._pause = _REDRAW_S if self._line.on_terminal else _PLAIN_S
        self._next = time.monotonic() + (0 if self._line.on_terminal else _PLAIN_S)
        self._seen: deque[tuple[float, int]] = deque()
        if not self._line.on_terminal:
            say(f"{title}: {size(total)} ...")

    def update(self, file: str, done: int, _total: int) -> None:
        """Record that `done` bytes of a file have arrived."""
        self._done[file] = done
        now, received = time.monotonic(), self._present + sum(self._done.values())
        self._seen.append((now, received))
        while now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        if now >= self._next or received >= self._total:
            self._next = now + self._pause
            self._line.draw(self._figures(now, received))

    def close(self) -> None:
        """End the line."""
        self._line.end()

    def _figures(self, now: float, received: int) -> str:
        first, before = self._seen[0]
        rate = (received - before) / (now - first) if now - first > 0 else 0.0
        share = received / self._total if self._total else 1.0
        parts = [f"{self._title} {share:4.0%}", f"{size(received)} of {size(self._total)}"]
        if rate > 0:
            parts += [f"{size(int(rate))}/s", f"{duration((self._total - received) / rate)} left"]
        return " | ".join(parts)


@contextlib.contextmanager
def transfer(title: str, total: int, present: int) -> Iterator[Callable[[str, int, int], None]]:
    """A callback for downloads of `total` bytes, of which `present` are on the disk already."""
    line = Transfer(title, total, present)
    try:
        yield line.update
    finally:
        line.close()


class _RetryLine:
    """The line that announces a retry; erased when data arrives or the block ends."""

    def __init__(self) -> None:
        self._line = StatusLine()
        self._lock = threading.Lock()  # several files are downloaded at a time

    def update(self, retry: Retry | None) -> None:
        with self._lock:
            if retry is None:
                self._line.erase()
            else:
                self._line.flash(_describe(retry))

    def close(self) -> None:
        with self._lock:
            self._line.erase()


def _describe(retry: Retry) -> str:
    """The text of the line; the file comes last, since a narrow terminal cuts the end off."""
    return printable(
        f"Trying again in {retry.wait:.0f} s (attempt {retry.attempt} of {retry.attempts}):"
        f" {retry.reason}: {retry.what}"
    )


@contextlib.contextmanager
def retry_notices() -> Iterator[None]:
    """Show network failures and retries while the block runs."""
    line = _RetryLine()
    try:
        with on_retry(line.update):
            yield
    finally:
        line.close()
