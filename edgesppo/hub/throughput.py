"""Owns how slowly, and how long before its first byte of use, a server may answer.

A socket's own limit is on a single wait, so a byte now and then would hold us for ever. Here the
waits are added up. Knows nothing of the hub.
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

WINDOW = 30.0  # seconds of waiting, in which at least so many bytes come
LEAST = 8 << 10
HEADING = 256 << 10  # bytes before those of use: headers, and interim answers without number


_PACKING = 8  # times the bytes of use, for chunks of a few bytes each


class TooLongHeading(http.client.HTTPException):
    """More headers, interim answers or trailers than any honest server gives."""


class _Paced(io.RawIOBase):
    """What a socket gives, for as long as it gives enough. Only our waits for it count."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._waited = 0.0
        self._came = 0
        self._in_heading = True
        self._budget = HEADING

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """As a socket's; raises TooSlow and TooLongHeading."""
        started = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - started
        self._came += count or 0
        self._budget -= count or 0
        if self._budget < 0:
            raise TooLongHeading
        if count and self._waited >= WINDOW:
            if self._in_heading or self._came < LEAST:
                raise TooSlow(f"less than {LEAST / 1024:.0f} kB in {WINDOW:.0f} s")
            self._waited, self._came = 0.0, 0
        return count

    def allow(self, n: int | None) -> None:
        """What may come for the next so many bytes of use; None or less than 0: for all of them."""
        self._budget = sys.maxsize if n is None or n < 0 else HEADING + _PACKING * n

    def end_heading(self) -> None:
        """From here on it is a file's bytes."""
        self._in_heading, self._waited, self._came = False, 0.0, 0
        self.allow(0)

    def close(self) -> None:
        """Close the socket's half, too."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._paced = _Paced(self.fp.detach())
        self.fp = io.BufferedReader(self._paced)

    def begin(self) -> None:
        """Read the heading, which has a limit of its own."""
        super().begin()
        self._paced.end_heading()

    def read(self, amt: int | None = None) -> bytes:
        """As ever."""
        self._paced.allow(amt)
        return super().read(amt)

    def read1(self, n: int = -1) -> bytes:
        """As ever."""
        self._paced.allow(n)
        return super().read1(n)


class _Http(http.client.HTTPConnection):
    response_class = _Response


class _Https(http.client.HTTPSConnection):
    response_class = _Response


class PacedHttp(urllib.request.HTTPHandler):
    """For `urllib.request.build_opener`."""

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """The answer to it."""
        return self.do_open(_Http, request)


class PacedHttps(urllib.request.HTTPSHandler):
    """The same."""

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """The answer to it."""
        return self.do_open(_Https, request)
