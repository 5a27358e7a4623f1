"""HTTP handlers that give up on a server that is too slow or sends headers without end.

A socket's timeout limits each single wait, so a server that sends a byte now and then could hold
us for ever. Here the waits are added up.
"""

from __future__ import annotations

import http.client
import io
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from edgesppo.hub.responses import TooSlow

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

WINDOW = 30.0  # seconds of waiting in which at least MIN_BYTES must arrive
MIN_BYTES = 8 << 10
MAX_HEADER_BYTES = 256 << 10  # of headers, interim responses (1xx) and trailers together
_CHUNKED_OVERHEAD = 8  # bytes on the wire for a byte of the body, with very small chunks


class TooManyHeaders(http.client.HTTPException):
    """More headers, interim responses or trailers than an honest server sends."""


class _Paced(io.RawIOBase):
    """A socket's raw stream with a minimum throughput; only time spent waiting for it counts."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._waited = 0.0
        self._received = 0
        self._in_headers = True
        self._budget = MAX_HEADER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read from the socket into the buffer. Raises TooSlow and TooManyHeaders."""
        started = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - started
        self._received += count or 0
        self._budget -= count or 0
        if self._budget < 0:
            raise TooManyHeaders
        if count and self._waited >= WINDOW:
            if self._in_headers or self._received < MIN_BYTES:
                raise TooSlow(f"less than {MIN_BYTES / 1024:.0f} kB in {WINDOW:.0f} s")
            self._waited, self._received = 0.0, 0
        return count

    def allow(self, n: int | None) -> None:
        """Set the budget for reading `n` bytes of the body; None or a negative n is unlimited."""
        self._budget = (
            sys.maxsize if n is None or n < 0 else MAX_HEADER_BYTES + _CHUNKED_OVERHEAD * n
        )

    def end_headers(self) -> None:
        """Mark the end of the headers: what follows is the body."""
        self._in_headers, self._waited, self._received = False, 0.0, 0
        self.allow(0)

    def close(self) -> None:
        """Close the socket's stream, too."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._paced = _Paced(self.fp.detach())
        self.fp = io.BufferedReader(self._paced)

    def begin(self) -> None:
        """Read the status line and headers, which have a budget of their own."""
        super().begin()
        self._paced.end_headers()

    def read(self, amt: int | None = None) -> bytes:
        """Read `amt` bytes of the body, or all of it."""
        self._paced.allow(amt)
        return super().read(amt)

    def read1(self, n: int = -1) -> bytes:
        """Read up to `n` bytes of the body with at most one system call."""
        self._paced.allow(n)
        return super().read1(n)


class _Http(http.client.HTTPConnection):
    response_class = _Response


class _Https(http.client.HTTPSConnection):
    response_class = _Response


class PacedHttp(urllib.request.HTTPHandler):
    """Opens http URLs under these limits; for `urllib.request.build_opener`."""

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Send the request and return the response."""
        return self.do_open(_Http, request)


class PacedHttps(urllib.request.HTTPSHandler):
    """Opens https URLs under these limits; for `urllib.request.build_opener`."""

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Send the request and return the response."""
        return self.do_open(_Https, request)
