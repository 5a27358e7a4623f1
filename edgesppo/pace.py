"""Owns how slowly, and how long before its first byte of use, a server may answer.

A socket's own limit is on a single wait, so a byte now and then would hold us for ever. Here the
waits are added up. Knows nothing of the hub.
"""

from __future__ import annotations

import http.client
import io
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from edgesppo.answers import TooSlow

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

WINDOW = 30.0  # seconds of waiting, in which at least so many bytes come
LEAST = 8 << 10
HEADING = 256 << 10  # bytes before those of use: headers, and interim answers without number


class TooLongHeading(http.client.HTTPException):
    """More headers, or interim answers, than any honest server gives."""


class _Paced(io.RawIOBase):
    """What a socket gives, for as long as it gives enough. Only our waits for it count."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._waited = 0.0
        self._came = 0
        self._in_heading = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """As a socket's; raises TooSlow and TooLongHeading."""
        started = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - started
        self._came += count or 0
        if self._in_heading and self._came > HEADING:
            raise TooLongHeading
        if count and self._waited >= WINDOW:
            if self._in_heading or self._came < LEAST:
                raise TooSlow(f"less than {LEAST / 1024:.0f} kB in {WINDOW:.0f} s")
            self._waited, self._came = 0.0, 0
        return count

    def end_heading(self) -> None:
        """From here on it is a file's bytes."""
        self._in_heading, self._waited, self._came = False, 0.0, 0

    def close(self) -> None:
        """Close the socket's half, too."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._paced = _Paced(self.fp.detach())  # type: ignore[attr-defined]
        self.fp = io.BufferedReader(self._paced)

    def begin(self) -> None:
        """Read the heading, which has a limit of its own."""
        super().begin()
        self._paced.end_heading()


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
