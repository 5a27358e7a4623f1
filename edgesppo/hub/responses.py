"""Owns what a web server's answer says: where it leads, which bytes of how many it holds, how
long to wait. Nothing in it is believed to make sense. Knows nothing of the hub.
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
from edgesppo.hub.repository import is_address

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGES = (b"<!doctype html", b"<html")
_SNIFFED = 256  # bytes
_ENCODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd", "compress")
_RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d{1,15})", re.ASCII)


class Trouble(Exception):
    """Something that may be over in a moment; `size` is what the server says the file has."""

    def __init__(self, what: str, wait: float | None = None, size: int | None = None) -> None:
        super().__init__(what)
        self.wait = wait
        self.size = size


class TooSlow(Trouble):
    """Something comes, but so little that it would never end."""


def whole_size(headers: Any) -> int | None:
    """How many bytes the whole file has, as its server says; None where it does not."""
    place = headers.get("Content-Range")
    if place is not None:
        found = _RANGE.fullmatch(place.strip())
        return int(found[1]) if found else None
    return None if headers.get("Content-Encoding") else whole(headers.get("Content-Length") or "")


def check_kind(reply: Any, what: str) -> None:
    """Refuse a web page and packed bytes. Raises DownloadError, without the server's own words."""
    begun = reply.peek(_SNIFFED)[:_SNIFFED].lstrip().lower()
    if reply.headers.get_content_type() == "text/html" or begun.startswith(_PAGES):
        raise DownloadError(
            f"a web page came instead of {what}; is a log-in page of the network or a wrong"
            " HF_ENDPOINT in between?"
        )
    packed = (reply.headers.get("Content-Encoding") or "").strip().lower()
    if packed not in ("", "identity"):
        how = repr(packed) if packed in _ENCODINGS else "one that we do not know"
        raise DownloadError(
            f"{what} came with an unexpected Content-Encoding, {how}, which was not asked for; is a"
            " proxy in between that packs what passes it?"
        )


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Every redirect is looked at by us: the token must not follow it."""

    def http_error_302(self, *_: Any) -> None:
        """Not followed."""
        return

    http_error_301: Any = http_error_302
    http_error_303: Any = http_error_302
    http_error_307: Any = http_error_302
    http_error_308: Any = http_error_302


def span(reply: Any, at: int, end: int, block: int) -> Iterator[bytes]:
    """The bytes from `at` on, also where the server has ignored the range."""
    if reply.status == 206:
        if not (reply.headers.get("Content-Range") or "").startswith(f"bytes {at}-"):
            raise Trouble("another range than asked for")
    else:
        rest = at
        while rest:
            skipped = len(reply.read1(min(rest, block)))
            if not skipped:
                raise Trouble("the connection ended early")
            rest -= skipped
    while at < end:
        data = reply.read1(min(block, end - at))  # what is there: progress shows at once
        if not data:
            return
        yield data
        at += len(data)


def strong(etag: str | None) -> str | None:
    """An ETag that promises the same bytes; None for another."""
    return etag if etag and etag.startswith('"') else None


def redirected(url: str, location: str | None, what: str) -> str:
    """Where a redirect leads. Raises DownloadError where we do not follow."""
    try:
        # http.client takes the header's bytes for Latin-1.
        target = urljoin(url, quote(location or "", safe=string.punctuation, encoding="latin-1"))
    except ValueError:
        target = ""
    downgraded = target.startswith("http:") and url.startswith("https:")
    if location is None or not is_address(target) or downgraded:
        where = "nowhere" if location is None else public(location)
        raise DownloadError(f"{what} is redirected to {where}, where we do not follow")
    return target


def public(url: str) -> str:
    """The address as it may stand in a message: signatures stand behind the question mark, and
    before an @ there may be a password, be it one with a slash or a question mark in it.
    """
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    shown = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in rest and "/" not in shown and "@" not in shown:
        shown = "..."
    return repr(f"{scheme}{mark}{shown.rpartition('@')[2]}"[:80])


def origin(url: str) -> tuple[str, str | None, int | None]:
    """What tells one server from another."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def retry_after(value: str | None) -> float | None:
    """Seconds, be they given as a number or as a date; None where they are not."""
    if value is None:
        return None
    if (seconds := whole(value)) is not None:
        return float(seconds)
    with suppress(ValueError, TypeError, OverflowError, OSError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def whole(text: str) -> int | None:
    """A whole number of plain digits; None for anything else, such as a superscript two."""
    text = text.strip()
    return int(text[:15]) if text.isascii() and text.isdigit() else None
