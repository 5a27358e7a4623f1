"""Owns how often and how long a network that fails is tried again, and who hears of it.

Whoever shows a command's progress listens with `heard_by`; without a listener all is silent.
Knows nothing of addresses.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import DownloadError
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTEMPTS = 6  # in a row without a single byte
LONGEST_WAIT = 120.0  # seconds
_ENDED = (http.client.RemoteDisconnected, http.client.IncompleteRead)
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b", re.ASCII)


@dataclass(frozen=True)
class Retry:
    """Something failed and is about to be tried again."""

    what: str  # "config.json of OWNER/NAME"
    reason: str
    wait: float  # seconds until then
    attempt: int  # which it will be, since something last came
    attempts: int  # after how many we give up


# None says that something has come, after all.
Heard = Callable[[Retry | None], None]
_listener: ContextVar[Heard] = ContextVar("edgesppo_retry", default=lambda _: None)


@contextmanager
def on_retry(listener: Heard) -> Iterator[None]:
    """What is begun in this block tells the listener of its retries, be it from other threads."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class RetryPolicy:
    """With one place of the network: made in the thread whose listener is to hear."""

    def __init__(self, place: str, sleep: Callable[[float], None]) -> None:
        self._place = place
        self._sleep = sleep
        self._heard = _listener.get()

    def came(self, failures: int) -> int:
        """Something has come after so many failures; how many there are now: none."""
        if failures:
            self._heard(None)
        return 0

    def failed(self, what: str, error: Exception, wait: float | None, failures: int) -> int:
        """It has failed once more: wait, if it is worth it; how many failures there are now.

        `wait` is what was asked for, if it was. Raises DownloadError.
        """
        failures += 1
        reason = _reason(error)
        if failures >= ATTEMPTS:
            raise DownloadError(
                f"{what} could not be fetched from {self._place} ({reason}, {failures} times);"
                " check the connection and give the same command again"
            ) from None
        if wait is not None and wait > LONGEST_WAIT:
            raise DownloadError(
                f"{self._place} asks to wait {wait:,.0f} s before it gives {what}; give the same"
                " command again then"
            ) from None
        wait = min(2.0 ** (failures - 1), LONGEST_WAIT) if wait is None else wait
        self._heard(Retry(what, reason, wait, failures + 1, ATTEMPTS))
        self._sleep(wait)
        return failures


def _reason(error: Exception) -> str:
    """What the system says, or we; never a server's own words, which may hold what it was sent."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, OSError) and inner.strerror:
        return one_line(inner.strerror)
    if isinstance(inner, TimeoutError):
        return "timed out"
    if isinstance(inner, _ENDED):
        return "the connection ended early"
    if isinstance(inner, http.client.HTTPException):
        return "an answer that is no HTTP"
    if isinstance(inner, OSError):  # as http.client raises it, with the proxy's words behind
        status = _TUNNEL.match(str(inner))
        return f"the proxy refuses with status {status[1]}" if status else type(inner).__name__
    return one_line(str(inner)) or type(inner).__name__
