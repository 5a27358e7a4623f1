"""Owns how a download looks while it runs: one line on a terminal, some lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
import time
from collections import deque
from typing import TYPE_CHECKING

from edgesppo.cli import aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REDRAW_S = 0.1
_PLAIN_S = 30.0
_LABEL, _COLUMNS = 8, 79
_WINDOW_S = 10.0  # what the rate is taken over


class Transfer:
    """Bytes of all files together: how many are there, how fast they come, how long it takes."""

    def __init__(self, title: str, total: int, there: int) -> None:
        self._title = title
        self._total = total
        self._done: dict[str, int] = {}
        self._rest = there  # of files that are whole
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (0 if self._terminal else _PLAIN_S)
        self._seen: deque[tuple[float, int]] = deque()
        self._drawn = False
        if not self._terminal:
            aside(f"{title}: {size(total)} ...")

    def heard(self, file: str, done: int, _total: int) -> None:
        """`done` bytes of a file are there."""
        self._done[file] = done
        now, whole = time.monotonic(), self._rest + sum(self._done.values())
        self._seen.append((now, whole))
        while now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        if now >= self._next or whole >= self._total:
            self._next = now + (_REDRAW_S if self._terminal else _PLAIN_S)
            self._draw(self._line(now, whole))

    def close(self) -> None:
        """End the line."""
        if self._drawn and self._terminal:
            aside()

    def _draw(self, line: str) -> None:
        self._drawn = True
        if not self._terminal:
            aside(line)
            return
        room = shutil.get_terminal_size().columns - 1  # or every redraw would begin a new line
        aside("\r" + line[:room].ljust(room), newline=False)

    def _line(self, now: float, whole: int) -> str:
        first, before = self._seen[0]
        rate = (whole - before) / (now - first) if now - first > 0 else 0.0
        share = whole / self._total if self._total else 1.0
        parts = [f"{self._title} {share:4.0%}", f"{size(whole)} of {size(self._total)}"]
        if rate > 0:
            parts += [f"{size(int(rate))}/s", f"{duration((self._total - whole) / rate)} left"]
        return " | ".join(parts)


def size(n_bytes: int) -> str:
    """Bytes for people: 5.8 GB, 17.5 MB, 0.8 kB."""
    for unit, word in ((1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:,.1f} {word}"
    return f"{n_bytes / 1e3:,.1f} kB"


def labelled(label: str, text: str) -> str:
    """A line with a label, on as many lines of a usual terminal as it takes."""
    start = f"  {label:<{_LABEL}} "
    indent = " " * len(start)
    return textwrap.fill(
        text,
        _COLUMNS,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def duration(seconds: float) -> str:
    """Seconds for people: 45 s, 12 min, 3 h 5 min."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 2 * 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def transfer(title: str, total: int, there: int) -> Iterator[Callable[[str, int, int], None]]:
    """A callback for what fetches; the line ends when the block does."""
    drawn = Transfer(title, total, there)
    try:
        yield drawn.heard
    finally:
        drawn.close()
