"""One-line notices to the person, such as why answers are slow: warnings of the logger "edgesppo".

A Python program shows, sends elsewhere or silences them with `logging`. A command collects them,
and shows each where nothing else is being written.
"""

from __future__ import annotations

import collections
import contextlib
import logging
from typing import TYPE_CHECKING

from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_AT_ONCE = "at_once"
_LOGGER = logging.getLogger("edgesppo")
_waiting: collections.deque[str] = collections.deque()


class _Collector(logging.Handler):
    """Keeps each notice as one line that is safe to print; shows those that cannot wait."""

    def __init__(self, show: Callable[[str], None] | None) -> None:
        super().__init__()
        self._show = show or _waiting.append

    def emit(self, record: logging.LogRecord) -> None:
        put = self._show if getattr(record, _AT_ONCE, False) else _waiting.append
        put(one_line(record.getMessage()))


def notify(text: str, *, at_once: bool = False) -> None:
    """Give out a notice, `at_once` if it says what the program does now that takes long.

    Never raises: what shows it must not spoil what it is about.
    """
    with contextlib.suppress(Exception):
        _LOGGER.warning("%s", text, extra={_AT_ONCE: at_once})


@contextlib.contextmanager
def collected(show: Callable[[str], None] | None = None) -> Iterator[None]:
    """Keep the notices of the block for `take`; `show` is called with those that cannot wait."""
    collector = _Collector(show)
    _waiting.clear()
    _LOGGER.addHandler(collector)
    try:
        yield
    finally:
        _LOGGER.removeHandler(collector)


def take() -> list[str]:
    """The notices that were collected since the last call; none where nobody collects."""
    found = []
    with contextlib.suppress(IndexError):
        while True:
            found.append(_waiting.popleft())
    return found
