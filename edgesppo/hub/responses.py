"""Parse and check HTTP responses: redirects, byte ranges, content types, Retry-After.

Every header is untrusted and may be malformed.
"""

from __future__ import annotations

import re
import string
import time
import urllib.request
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from edgesppo.errors import DownloadError
from edgesppo.hub.repository import is_http_url

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGES = (b"<!doctype html", b"<html")
_SNIFFED = 256  # bytes
_ENCODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd", "compress")
_RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d{1,15})", re.ASCII)


class TransientError(Exception):
    """A failure that is worth a retry.

    `wait` is the seconds that the server asked to wait, `size` the bytes that it says the whole
    file has; each is None if it did not say.
    """

    def __init__(self, what: str, wait: float | None = None, size: int | None = None) -> None:
        super().__init__(what)
        self.wait = wait
        self.size = size


class TooSlow(TransientError):
    """The server sends data, but too slowly."""


def total_size(headers: Any) -> int | None:
    """Size of the whole file in bytes, according to the headers; None if they do not say."""
    content_range = headers.get("Content-Range")
    if content_range is not None:
        found = _RANGE.fullmatch(content_range.strip())
        return int(found[1]) if found else None
    return (
        None
        if headers.get("Content-Encoding")
        else parse_digits(headers.get("Content-Length") or "")
    )


def check_content(reply: Any, what: str) -> None:
    """Refuse a web page or compressed data.

    Raises DownloadError, which quotes nothing that the server sent.
    """
    start = reply.peek(_SNIFFED)[:_SNIFFED].lstrip().lower()
    if reply.headers.get_content_type() == "text/html" or start.startswith(_PAGES):
        raise DownloadError(
            f"received a web page instead of {what}; does this network require a login, and is"
            " HF_ENDPOINT right?"
        )
    encoding = (reply.headers.get("Content-Encoding") or "").strip().lower()
    if encoding not in ("", "identity"):
        how = repr(encoding) if encoding in _ENCODINGS else "an unknown one"
        raise DownloadError(
            f"{what} arrived with an unexpected Content-Encoding, {how}, which was not requested;"
            " does a proxy compress the traffic?"
        )


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to HubClient, which must not send the token along."""

    def http_error_302(self, *_: Any) -> None:
        """Do not follow the redirect."""
        return

    http_error_301: Any = http_error_302
    http_error_303: Any = http_error_302
    http_error_307: Any = http_error_302
    http_error_308: Any = http_error_302


def read_range(reply: Any, at: int, end: int, block: int) -> Iterator[bytes]:
    """Yield the bytes from `at` up to `end`; skips to `at` if the server ignored the range.

    Raises TransientError for another range than the requested one.
    """
    if reply.status == 206:
        if not (reply.headers.get("Content-Range") or "").startswith(f"bytes {at}-"):
            raise TransientError("the server sent another byte range than requested")
    else:
        remaining = at
        while remaining:
            skipped = len(reply.read1(min(remaining, block)))
            if not skipped:
                raise TransientError("the connection ended early")
            remaining -= skipped
    while at < end:
        data = reply.read1(min(block, end - at))  # returns what has arrived: progress is smooth
        if not data:
            return
        yield data
        at += len(data)


def strong_etag(etag: str | None) -> str | None:
    """The ETag if it is a strong one, which promises identical bytes; otherwise None."""
    return etag if etag and etag.startswith('"') else None


def redirect_target(url: str, location: str | None, what: str) -> str:
    """The address that a redirect leads to.

    Raises DownloadError if it is not an http(s) address, or leads from https to http.
    """
    try:
        # http.client decodes headers as Latin-1.
        target = urljoin(url, quote(location or "", safe=string.punctuation, encoding="latin-1"))
    except ValueError:
        target = ""
    downgraded = target.startswith("http:") and url.startswith("https:")
    if location is None or not is_http_url(target) or downgraded:
        where = "nowhere" if location is None else url_without_secrets(location)
        raise DownloadError(
            f"{what} is redirected to {where}, which is not followed; is HF_ENDPOINT right?"
        )
    return target


def url_without_secrets(url: str) -> str:
    """The address without anything secret, quoted, for messages.

    Removes the query, which may hold a signature, and everything before an @, which may hold a
    password, even one that contains a slash or a question mark.
    """
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    shown = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in rest and "/" not in shown and "@" not in shown:
        shown = "..."
    return repr(f"{scheme}{mark}{shown.rpartition('@')[2]}"[:80])


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, which together identify a server."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a Retry-After header with a number or a date; None if malformed."""
    if value is None:
        return None
    if (seconds := parse_digits(value)) is not None:
        return float(seconds)
    with suppress(ValueError, TypeError, OverflowError, OSError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def parse_digits(text: str) -> int | None:
    """The number that ASCII digits spell; None for any other text."""
    text = text.strip()
    return int(text[:15]) if text.isascii() and text.isdigit() else None
