"""Owns the way to the Hugging Face hub: its routes, the token, broken connections, its refusals.

All but the first is asked for at a 40-hex revision, so it cannot change between two requests:

    ENDPOINT/api/models/OWNER/NAME/revision/NAME       which commit a branch is
    ENDPOINT/api/models/OWNER/NAME/tree/REVISION       every file's size and hash
    ENDPOINT/OWNER/NAME/resolve/REVISION/PATH          its bytes, mostly by way of a redirect

The token goes to the endpoint itself only, never where a redirect leads, and into no message.
Writes nothing to the disk; what arrives is for the caller to hold against the hash.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edgesppo.errors import DownloadError, ModelNotFound, UsageError
from edgesppo.hub.repository import endpoint, parse_commit, parse_listing
from edgesppo.hub.responses import (
    NoRedirect,
    TooSlow,
    Trouble,
    check_kind,
    origin,
    public,
    redirected,
    retry_after,
    span,
    strong,
    whole,
    whole_size,
)
from edgesppo.hub.retry import RetryPolicy
from edgesppo.hub.throughput import PacedHttp, PacedHttps, TooLongHeading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.hub.repository import Commit, RemoteFile, Repository

TIMEOUT = 30.0
MAX_REDIRECTS = 5
MAX_LISTING = 4 << 20
BLOCK = 1 << 20
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, 2.1


_PASSING = (Trouble, OSError, http.client.HTTPException)


def _is_bomb(error: http.client.HTTPException) -> bool:
    """Whether the headers were too many or too long, which no second attempt makes fewer."""
    kinds = (http.client.HTTPException, http.client.LineTooLong, TooLongHeading)
    return type(error) in kinds


def _asked(error: Exception) -> float | None:
    """How long the hub wants us to wait, where it has said so."""
    return error.wait if isinstance(error, Trouble) else None


def offline() -> str | None:
    """The variable that forbids going online, if one does: with any value that is no plain no."""
    for name in ("EDGESPPO_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").strip().lower() not in ("", "0", "off", "no", "false"):
            return name
    return None


def require_online() -> None:
    """Raises UsageError where going to the hub is forbidden, or its address makes no sense."""
    if variable := offline():
        option = "--offline was given, or " if variable == "EDGESPPO_OFFLINE" else ""
        raise UsageError(
            f"{option}{variable} is set, so nothing is fetched; leave that out, or use a folder"
        )
    endpoint()


class HubClient:
    """The hub, as one process asks it."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        require_online()
        self._endpoint = endpoint()
        self._token = _token()
        self._patience = RetryPolicy(self._endpoint, sleep)
        self._opener = urllib.request.build_opener(NoRedirect, PacedHttp, PacedHttps)

    def files(self, repository: Repository) -> dict[str, RemoteFile]:
        """Every file at the top of the repository."""
        url = f"{self._endpoint}/api/models/{repository}/tree/{repository.revision}"
        listing = f"the list of files of {repository}"
        data = self._persist(listing, lambda: self._read_all(repository, url, listing))
        try:
            return parse_listing(data)
        except ValueError:
            raise DownloadError(
                f"{self._endpoint} gave no list of the files of {repository}; is HF_ENDPOINT right?"
            ) from None

    def commit(self, repository: Repository) -> Commit:
        """Which commit the repository's revision, mostly a branch, stands for now."""
        name = repository.revision
        url = f"{self._endpoint}/api/models/{repository}/revision/{quote(name, safe='')}"
        what = f"commit {name!r} of {repository}"
        data = self._persist(what, lambda: self._read_all(repository, url, what))
        try:
            return parse_commit(data)
        except ValueError:
            raise DownloadError(
                f"{self._endpoint} does not say which {what} is; is HF_ENDPOINT right?"
            ) from None

    def span(self, repository: Repository, file: RemoteFile, at: int, end: int) -> bytes:
        """The bytes from `at` to before `end`, unverified."""
        return b"".join(self.stream(repository, file, at, end))

    def stream(
        self, repository: Repository, file: RemoteFile, at: int, end: int
    ) -> Iterator[bytes]:
        """The same, block by block, whatever happens to the connection."""
        failures, slow, etag = 0, 0, None
        what = f"{file.path} of {repository}"
        url = f"{self._endpoint}/{repository}/resolve/{repository.revision}/{quote(file.path)}"
        while at < end:
            begun = at
            try:
                headers = {"Range": f"bytes={at}-{end - 1}"}
                if etag is not None:
                    headers["If-Range"] = etag
                with self._open(repository, url, what, headers) as reply:
                    _check_size(what, file, whole_size(reply.headers))
                    etag = strong(reply.headers.get("ETag"))
                    for data in span(reply, at, end, BLOCK):
                        failures = self._patience.came(failures)
                        yield data
                        at += len(data)
                        slow = 0 if at - begun >= BLOCK else slow
                if at < end:
                    raise Trouble("the connection ended early")
            except _PASSING as error:
                _check_size(what, file, getattr(error, "size", None))
                if isinstance(error, TooSlow):  # the few bytes that came are no end to it
                    failures, slow = max(failures, slow), slow + 1
                failures = self._patience.failed(what, error, _asked(error), failures)

    def small(self, repository: Repository, file: RemoteFile) -> bytes:
        """A whole file, verified; for those that fit into memory. Raises DownloadError."""
        data, hasher = self.span(repository, file, 0, file.size), file.hasher()
        hasher.update(data)
        if hasher.hexdigest() != file.digest:
            raise DownloadError(
                f"{file.path} of {repository} came with the hash {hasher.hexdigest()}, but"
                f" {file.digest} is pinned; give the same command again later"
            )
        return data

    def _persist(self, what: str, call: Callable[[], bytes]) -> bytes:
        failures = 0
        while True:
            try:
                data = call()
                self._patience.came(failures)
                return data
            except _PASSING as error:
                failures = self._patience.failed(what, error, _asked(error), failures)

    def _read_all(self, repository: Repository, url: str, what: str) -> bytes:
        with self._open(repository, url, what, {}) as reply:
            data: bytes = reply.read(MAX_LISTING)
            announced = reply.headers.get("Content-Length") or ""
        if len(data) < (whole(announced) or 0):
            raise Trouble("the connection ended early")
        return data

    def _open(self, repository: Repository, url: str, what: str, headers: dict[str, str]) -> Any:
        """The answer to a request, wherever it was redirected to."""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                request = urllib.request.Request(url, headers={"User-Agent": "edgesppo", **headers})
                if self._token and origin(url) == origin(self._endpoint):
                    request.add_unredirected_header("Authorization", f"Bearer {self._token}")
                reply = self._opener.open(request, timeout=TIMEOUT)
            except urllib.error.HTTPError as error:
                with error:
                    url = self._answer(repository, url, what, error)
                continue
            except (ValueError, http.client.InvalidURL):  # a name too long, a proxy of no sense
                raise DownloadError(
                    f"{what} cannot be asked for at {public(url)}: that is no address, or the"
                    " proxy's is none; are HF_ENDPOINT, HTTP_PROXY and HTTPS_PROXY right?"
                ) from None
            except http.client.HTTPException as error:
                if not _is_bomb(error):
                    raise
                raise DownloadError(
                    f"the answer to the request for {what} has more headers than any hub gives; is"
                    " HF_ENDPOINT, or a proxy in between, right?"
                ) from None
            try:
                check_kind(reply, what)
            except BaseException:
                reply.close()
                raise
            return reply
        raise DownloadError(f"{what} is redirected more than {MAX_REDIRECTS} times")

    def _answer(
        self, repository: Repository, url: str, what: str, error: urllib.error.HTTPError
    ) -> str:
        """Where to ask next; raises what the status means."""
        status, page = error.code, f"{self._endpoint}/{repository}"
        if status in (301, 302, 303, 307, 308):
            return redirected(url, error.headers.get("Location"), what)
        if status == 401:
            raise DownloadError(
                f"the hub does not give {what} to everyone, or there is no such repository (401);"
                " check the name, and log in with `hf auth login` or set HF_TOKEN",
                status=status,
            )
        if status == 403:
            raise DownloadError(
                f"the hub refuses {what} (403); accept the licence at {page}, or use a token that"
                " may read it",
                status=status,
            )
        if status == 404:
            at = "" if repository.revision in what else f" at {repository.revision}"
            raise ModelNotFound(f"the hub has no {what}{at} (404); see {page}")
        if status in (408, 416, 429) or status >= 500:
            wait = retry_after(error.headers.get("Retry-After"))
            has_size = status == 416 and error.headers.get("Content-Range")
            raise Trouble(f"status {status}", wait, whole_size(error.headers) if has_size else None)
        raise DownloadError(f"the hub answers {status} to the request for {what}")


def _check_size(what: str, file: RemoteFile, found: int | None) -> None:
    """No patience makes a file of another size what was pinned."""
    if found not in (None, file.size):
        raise DownloadError(
            f"{what} has {found:,} bytes on the hub, but {file.size:,} are pinned; give the same"
            " command again later, or pin it anew"
        )


def _token() -> str | None:
    """The person's token, from the environment or as `hf auth login` has saved it."""
    from huggingface_hub import get_token

    try:
        token = get_token()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the token that `hf auth login` has saved cannot be read ({type(error).__name__});"
            " log in anew, or set HF_TOKEN"
        ) from None
    if token and not _TOKEN.fullmatch(token):
        raise UsageError(
            "the token for the hub (HF_TOKEN, or what `hf auth login` has saved) holds a character"
            " that no token has, a quotation mark perhaps; set it anew"
        )
    return token
