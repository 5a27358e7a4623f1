"""Owns how a conversion looks while it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TYPE_CHECKING

from edgesppo.cli import aside
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo_convert import Progress

_BAR = 30
_REDRAW_S = 0.1
_PATIENCE_S = 1.0


class Meter:
    """Draws bytes done of a total on standard error, or parts of what is no bytes.

    What was through at the first update was not done now: the time left is reckoned from what
    came later, and from the time in which no other meter moved. Nothing is drawn before
    `patience` seconds of that have passed.
    """

    _drawing: Meter | None = None  # whose line it is
    _moving: Meter | None = None  # the last that was updated

    def __init__(self, title: str, *, in_bytes: bool = True, patience: float = 0.0) -> None:
        self._title = one_line(title)
        self._in_bytes = in_bytes
        self._patience = patience
        self._base: float | None = None  # what was through at first
        self._busy = 0.0  # seconds
        self._updated_at = 0.0
        self._drawn_at = 0.0
        self._terminal = sys.stderr.isatty()
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
            if not self._terminal:
                size = f": {total / 1e6:,.1f} MB" if self._in_bytes else ""
                aside(f"{self._title}{size} ...")
        if self._terminal and (now - self._drawn_at > _REDRAW_S or done >= total):
            self._drawn_at = now
            if Meter._drawing not in (None, self):
                aside()
            Meter._drawing = self
            aside("\r" + self._line(done, total), newline=False)

    def close(self) -> None:
        """End the bar's line."""
        if Meter._drawing is self:
            Meter._drawing = None
            aside()

    def _line(self, done: float, total: float) -> str:
        """As wide as the terminal at most, or every redraw would begin a new line."""
        share = done / total if total else 1.0
        size = f" {done / 1e6:,.1f}/{total / 1e6:,.1f} MB" if self._in_bytes else ""
        figures = f"{share:4.0%}{size}{self._left(done, total)}"
        room = shutil.get_terminal_size().columns - 1
        width = min(_BAR, room - len(self._title) - len(figures) - 4)
        bar = f"[{'#' * int(share * width):<{width}}] " if width > 0 else ""
        return f"{self._title} {bar}{figures}"[:room].ljust(room)

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
