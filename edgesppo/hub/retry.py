"""Retries of failed requests: how often, how long to wait, and who is notified.

`on_retry` sets the listener that shows retries to the user; without one they are silent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import DownloadError
from edgesppo.hub.network import Unreachable
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTEMPTS = 6  # consecutive failures without a single byte in between
LONGEST_WAIT = 120.0  # seconds
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b", re.ASCII)


@dataclass(frozen=True)
class Retry:
    """A failed request that is about to be tried again."""

    what: str  # "config.json of OWNER/NAME"
    reason: str
    wait: float  # seconds until the next attempt
    attempt: int  # its number, counted since data last arrived
    attempts: int  # the number after which we give up


# Called with None when a retry succeeded.
RetryListener = Callable[[Retry | None], None]
_listener: ContextVar[RetryListener] = ContextVar("edgesppo_retry", default=lambda _: None)


@contextmanager
def on_retry(listener: RetryListener) -> Iterator[None]:
    """Send the retries of every RetryPolicy created in this block to the listener.

    The listener is also called from other threads, where the policy is used there.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class RetryPolicy:
    """Retries with one host, by exponential backoff; takes the current thread's listener."""

    def __init__(self, host: str, sleep: Callable[[float], None]) -> None:
        self._host = host
        self._sleep = sleep
        self._listener = _listener.get()

    def succeeded(self, failures: int) -> int:
        """Report data after `failures` consecutive failures; returns the new count, 0."""
        if failures:
            self._listener(None)
        return 0

    def failed(self, what: str, error: Exception, wait: float | None, failures: int) -> int:
        """Wait for the next attempt; returns the new count of consecutive failures.

        `wait` is the seconds that the server asked for, if it did. Raises DownloadError after
        ATTEMPTS failures, at once where there is no network, or where the server asks for more than
        LONGEST_WAIT.
        """
        failures += 1
        reason, attempts = _reason(error), ATTEMPTS
        if isinstance(error, Unreachable):
            attempts = error.attempts
            if failures >= attempts:
                raise DownloadError(f"{what} cannot be fetched: {error}") from None
        if failures >= ATTEMPTS:
            raise DownloadError(
                f"{what} could not be fetched from {self._host} ({reason}, {failures} times);"
                " check the connection and run the same command again"
            ) from None
        if wait is not None and wait > LONGEST_WAIT:
            raise DownloadError(
                f"{self._host} asks to wait {wait:,.0f} s before it sends {what}; run the same"
                " command again then"
            ) from None
        wait = min(2.0 ** (failures - 1), LONGEST_WAIT) if wait is None else wait
        self._listener(Retry(what, reason, wait, failures + 1, attempts))
        self._sleep(wait)
        return failures


def _reason(error: Exception) -> str:
    """A short reason for the failure.

    Never quotes the server, whose text may echo the token that was sent to it.
    """
    # Loaded late: a listener is set around commands that fetch nothing, too.
    import http.client
    import urllib.error

    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, Unreachable):
        return f"{inner.host} cannot be reached"
    if isinstance(inner, OSError) and inner.strerror:
        return one_line(inner.strerror)
    if isinstance(inner, TimeoutError):
        return "timed out"
    if isinstance(inner, http.client.RemoteDisconnected | http.client.IncompleteRead):
        return "the connection ended early"
    if isinstance(inner, http.client.HTTPException):
        return "the response is not valid HTTP"
    if isinstance(inner, OSError):  # http.client appends the proxy's own text
        status = _TUNNEL.match(str(inner))
        return f"the proxy answered with status {status[1]}" if status else type(inner).__name__
    return one_line(str(inner)) or type(inner).__name__
