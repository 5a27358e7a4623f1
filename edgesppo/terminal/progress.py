"""Progress on standard error: bars for work, the rate of a download, retries of the network.

On a terminal each is one line that is drawn again; elsewhere it is a few plain lines.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from edgesppo.hub.retry import Retry, on_retry
from edgesppo.system.sanitize import one_line, printable
from edgesppo.system.units import duration, megabytes, size
from edgesppo.terminal.output import StatusLine, aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo_convert import Progress

_BAR = 30
_REDRAW_S = 0.1
_PLAIN_S = 30.0  # between two lines of a download, away from a terminal
_PATIENCE_S = 1.0
_WINDOW_S = 10.0  # what the rate of a download is taken over


class Meter:
    """Draws bytes done of a total on standard error, or parts of what is no bytes.

    What was through at the first update was not done now: the time left is reckoned from what
    came later, and from the time in which no other meter moved. Nothing is drawn before
    `patience` seconds of that have passed.
    """

    _moving: Meter | None = None  # the last that was updated

    def __init__(self, title: str, *, in_bytes: bool = True, patience: float = 0.0) -> None:
        self._title = one_line(title)
        self._in_bytes = in_bytes
        self._patience = patience
        self._base: float | None = None  # what was through at first
        self._busy = 0.0  # seconds
        self._updated_at = 0.0
        self._drawn_at = 0.0
        self._line = StatusLine()
        self._begun = False

    def update(self, done: float, total: float) -> None:
        """Show that `done` of `total` are through."""
        now = time.perf_counter()
        if self._base is None:
            self._base = done
        elif Meter._moving is self:
            self._busy += now - self._updated_at
        self._updated_at, Meter._moving = now, self
        if self._busy < self._patience:
            return
        if not self._begun:
            self._begun = True
            if not self._line.on_terminal:
                of = f": {megabytes(total)}" if self._in_bytes else ""
                aside(f"{self._title}{of} ...")
        if self._line.on_terminal and (now - self._drawn_at > _REDRAW_S or done >= total):
            self._drawn_at = now
            self._line.draw(self._bar(done, total))

    def close(self) -> None:
        """End the bar's line."""
        self._line.end()

    def _bar(self, done: float, total: float) -> str:
        share = done / total if total else 1.0
        through = f" {done / 1e6:,.1f}/{megabytes(total)}" if self._in_bytes else ""
        figures = f"{share:4.0%}{through}{self._left(done, total)}"
        width = min(_BAR, self._line.width - len(self._title) - len(figures) - 4)
        bar = f"[{'#' * int(share * width):<{width}}] " if width > 0 else ""
        return f"{self._title} {bar}{figures}"

    def _left(self, done: float, total: float) -> str:
        """How long it will take; nothing while there is no telling."""
        through = done - (self._base or 0.0)
        if done < total and (through <= 0 or self._busy <= 0):
            return ""
        return f" {(total - done) * self._busy / max(through, 1e-9):.0f} s left"


@contextlib.contextmanager
def conversion_progress(title: str) -> Iterator[Callable[[Progress], None]]:
    """A callback for `convert(progress=...)` that draws; nothing is drawn if it is never called.

    What comes before and after the conversion is shown only where it takes its time.
    """
    meters = {
        "checking": Meter("Checking what is there of it", patience=_PATIENCE_S),
        "converting": Meter(title),
        "reading back": Meter("Reading it back", patience=_PATIENCE_S),
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
    """A callback for `load(on_tune=...)`; nothing is drawn where nothing has to be measured."""
    with measuring("Finding the fastest settings for this machine (once)") as report:
        yield report


@contextlib.contextmanager
def measuring(title: str) -> Iterator[Callable[[float], None]]:
    """A callback that draws which part is done; nothing is drawn if it is never called."""
    meter = Meter(title, in_bytes=False)
    try:
        yield lambda share: meter.update(share, 1.0)
    finally:
        meter.close()


@contextlib.contextmanager
def fetch_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback for `convert(fetched=...)`: a bar or a line for every file."""
    meters: dict[str, Meter] = {}

    def report(file: str, done: int, total: int) -> None:
        meters.setdefault(file, Meter(f"Fetching {file}")).update(done, total)

    try:
        yield report
    finally:
        for meter in meters.values():
            meter.close()


class Transfer:
    """Bytes of all files together: how many are there, how fast they come, how long it takes."""

    def __init__(self, title: str, total: int, there: int) -> None:
        self._title = title
        self._total = total
        self._done: dict[str, int] = {}
        self._rest = there  # of files that are whole
        self._line = StatusLine()
        self._pause = _REDRAW_S if self._line.on_terminal else _PLAIN_S
        self._next = time.monotonic() + (0 if self._line.on_terminal else _PLAIN_S)
        self._seen: deque[tuple[float, int]] = deque()
        if not self._line.on_terminal:
            aside(f"{title}: {size(total)} ...")

    def heard(self, file: str, done: int, _total: int) -> None:
        """`done` bytes of a file are there."""
        self._done[file] = done
        now, whole = time.monotonic(), self._rest + sum(self._done.values())
        self._seen.append((now, whole))
        while now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        if now >= self._next or whole >= self._total:
            self._next = now + self._pause
            self._line.draw(self._figures(now, whole))

    def close(self) -> None:
        """End the line."""
        self._line.end()

    def _figures(self, now: float, whole: int) -> str:
        first, before = self._seen[0]
        rate = (whole - before) / (now - first) if now - first > 0 else 0.0
        share = whole / self._total if self._total else 1.0
        parts = [f"{self._title} {share:4.0%}", f"{size(whole)} of {size(self._total)}"]
        if rate > 0:
            parts += [f"{size(int(rate))}/s", f"{duration((self._total - whole) / rate)} left"]
        return " | ".join(parts)


@contextlib.contextmanager
def transfer(title: str, total: int, there: int) -> Iterator[Callable[[str, int, int], None]]:
    """A callback for what fetches; the line ends when the block does."""
    drawn = Transfer(title, total, there)
    try:
        yield drawn.heard
    finally:
        drawn.close()


class _Notice:
    """The line; it goes when something has come, or when all is over."""

    def __init__(self) -> None:
        self._line = StatusLine()
        self._one_at_a_time = threading.Lock()  # files are fetched side by side

    def heard(self, retry: Retry | None) -> None:
        with self._one_at_a_time:
            if retry is None:
                self._line.erase()
            else:
                self._line.flash(_worded(retry))

    def close(self) -> None:
        with self._one_at_a_time:
            self._line.erase()


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
        with on_retry(notice.heard):
            yield
    finally:
        notice.close()
