"""HTTP client for the Hugging Face hub, with retries, resumed reads and the user's token.

    ENDPOINT/api/models/OWNER/NAME/revision/NAME       which commit a branch or tag points to
    ENDPOINT/api/models/OWNER/NAME/tree/REVISION       every file's size and hash
    ENDPOINT/OWNER/NAME/resolve/REVISION/PATH          a file's bytes, usually through a redirect

All requests but the first name a 40-digit commit, so the answer cannot change between two of them.
The token is sent to ENDPOINT only, never to the target of a redirect, and appears in no message.
Nothing is written to the disk, and the caller must check what it receives against the hash.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edgesppo.errors import DownloadError, ModelNotFound, UsageError
from edgesppo.hub.network import unreachable
from edgesppo.hub.repository import endpoint, parse_commit, parse_listing
from edgesppo.hub.responses import (
    NoRedirect,
    TooSlow,
    TransientError,
    check_content,
    origin,
    parse_digits,
    read_range,
    redirect_target,
    retry_after,
    strong_etag,
    total_size,
    url_without_secrets,
)
from edgesppo.hub.retry import RetryPolicy
from edgesppo.hub.throughput import PacedHttp, PacedHttps, TooManyHeaders
from edgesppo.hub.token import user_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.hub.repository import Commit, RemoteFile, Repository

TIMEOUT = 30.0
MAX_REDIRECTS = 5
MAX_LISTING = 4 << 20
BLOCK = 1 << 20


_TRANSIENT = (TransientError, OSError, http.client.HTTPException)


def _has_too_many_headers(error: http.client.HTTPException) -> bool:
    """Whether the headers were too many or too long, which a retry would not change."""
    kinds = (http.client.HTTPException, http.client.LineTooLong, TooManyHeaders)
    return type(error) in kinds


def _requested_wait(error: Exception) -> float | None:
    """Seconds that the hub asked to wait before the next attempt; None if it asked for nothing."""
    return error.wait if isinstance(error, TransientError) else None


def offline() -> str | None:
    """Name of the environment variable that forbids connections; None if none does.

    Any value forbids them, except an empty one, 0, off, no and false.
    """
    for name in ("EDGESPPO_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").strip().lower() not in ("", "0", "off", "no", "false"):
            return name
    return None


def require_online() -> None:
    """Raise UsageError if connections are forbidden or HF_ENDPOINT is not a valid address."""
    if variable := offline():
        option = "--offline was given, or " if variable == "EDGESPPO_OFFLINE" else ""
        raise UsageError(
            f"{option}{variable} is set, so nothing is fetched; run without it, or use a local"
            " folder"
        )
    endpoint()


class HubClient:
    """A connection to the hub. `sleep` waits the given seconds before a retry.

    The constructor raises UsageError when offline, and for an invalid endpoint or token.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        require_online()
        self._endpoint = endpoint()
        self._token = user_token()
        self._retries = RetryPolicy(self._endpoint, sleep)
        self._opener = urllib.request.build_opener(NoRedirect, PacedHttp, PacedHttps)
        self._reached = set[str]()  # the hosts that have answered

    def files(self, repository: Repository) -> dict[str, RemoteFile]:
        """List the files at the top level of the repository, by path.

        Raises DownloadError and ModelNotFound.
        """
        url = f"{self._endpoint}/api/models/{repository}/tree/{repository.revision}"
        listing = f"the list of files of {repository}"
        data = self._with_retries(listing, lambda: self._read_all(repository, url, listing))
        try:
            return parse_listing(data)
        except ValueError:
            raise DownloadError(
                f"{self._endpoint} did not return a list of the files of {repository};"
                " is HF_ENDPOINT right?"
            ) from None

    def commit(self, repository: Repository) -> Commit:
        """Resolve the repository's revision (a branch, tag or commit) to a commit.

        Raises DownloadError and ModelNotFound.
        """
        name = repository.revision
        url = f"{self._endpoint}/api/models/{repository}/revision/{quote(name, safe='')}"
        what = f"revision {name!r} of {repository}"
        data = self._with_retries(what, lambda: self._read_all(repository, url, what))
        try:
            return parse_commit(data)
        except ValueError:
            raise DownloadError(
                f"{self._endpoint} did not say which commit {name!r} of {repository} is;"
                " is HF_ENDPOINT right?"
            ) from None

    def read_range(self, repository: Repository, file: RemoteFile, at: int, end: int) -> bytes:
        """Read the bytes from `at` up to but not including `end`, without verifying them."""
        return b"".join(self.stream(repository, file, at, end))

    def stream(
        self, repository: Repository, file: RemoteFile, at: int, end: int
    ) -> Iterator[bytes]:
        """Yield the bytes of that range in blocks, reconnecting where the connection broke.

        Raises DownloadError once the retries are exhausted.
        """
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
                    _check_size(what, file, total_size(reply.headers))
                    etag = strong_etag(reply.headers.get("ETag"))
                    for data in read_range(reply, at, end, BLOCK):
                        failures = self._retries.succeeded(failures)
                        yield data
                        at += len(data)
                        slow = 0 if at - begun >= BLOCK else slow
                if at < end:
                    raise TransientError("the connection ended early")
            except _TRANSIENT as error:
                _check_size(what, file, getattr(error, "size", None))
                if isinstance(error, TooSlow):  # a few bytes must not reset the count of failures
                    failures, slow = max(failures, slow), slow + 1
                failures = self._retries.failed(what, error, _requested_wait(error), failures)

    def read_verified(self, repository: Repository, file: RemoteFile) -> bytes:
        """Read a whole small file into memory and verify its hash. Raises DownloadError."""
        data, hasher = self.read_range(repository, file, 0, file.size), file.hasher()
        hasher.update(data)
        if hasher.hexdigest() != file.digest:
            raise DownloadError(
                f"{file.path} of {repository} arrived with the hash {hasher.hexdigest()}, but"
                f" {file.digest} is pinned; run the same command again later"
            )
        return data

    def _with_retries(self, what: str, call: Callable[[], bytes]) -> bytes:
        failures = 0
        while True:
            try:
                data = call()
                self._retries.succeeded(failures)
                return data
            except _TRANSIENT as error:
                failures = self._retries.failed(what, error, _requested_wait(error), failures)

    def _read_all(self, repository: Repository, url: str, what: str) -> bytes:
        with self._open(repository, url, what, {}) as reply:
            data: bytes = reply.read(MAX_LISTING)
            announced = reply.headers.get("Content-Length") or ""
        if len(data) < (parse_digits(announced) or 0):
            raise TransientError("the connection ended early")
        return data

    def _open(self, repository: Repository, url: str, what: str, headers: dict[str, str]) -> Any:
        """Send a request and follow its redirects; returns the open response."""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                request = urllib.request.Request(url, headers={"User-Agent": "edgesppo", **headers})
                if self._token and origin(url) == origin(self._endpoint):
                    request.add_unredirected_header("Authorization", f"Bearer {self._token}")
                reply = self._connect(request)
            except urllib.error.HTTPError as error:
                with error:
                    url = self._follow_or_raise(repository, url, what, error)
                continue
            except (ValueError, http.client.InvalidURL):  # a host name too long, an invalid proxy
                raise DownloadError(
                    f"{what} cannot be requested from {url_without_secrets(url)}: that address or"
                    " the proxy's is invalid; are HF_ENDPOINT, HTTP_PROXY and HTTPS_PROXY right?"
                ) from None
            except http.client.HTTPException as error:
                if not _has_too_many_headers(error):
                    raise
                raise DownloadError(
                    f"the response to the request for {what} has too many headers for a hub; are"
                    " HF_ENDPOINT and the proxy settings right?"
                ) from None
            try:
                check_content(reply, what)
            except BaseException:
                reply.close()
                raise
            return reply
        raise DownloadError(
            f"{what} is redirected more than {MAX_REDIRECTS} times; is HF_ENDPOINT right?"
        )

    def _connect(self, request: urllib.request.Request) -> Any:
        """Send a request. Raises Unreachable if there is no way to a host that never answered."""
        try:
            reply = self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError:
            self._reached.add(request.host)
            raise
        except urllib.error.URLError as error:
            # Where it has answered before, the network was there, and may come back.
            dead = None if request.host in self._reached else unreachable(request, error)
            raise (dead or error) from None
        self._reached.add(request.host)
        return reply

    def _follow_or_raise(
        self, repository: Repository, url: str, what: str, error: urllib.error.HTTPError
    ) -> str:
        """The address that a redirect leads to; raises the error for any other status."""
        status, page = error.code, f"{self._endpoint}/{repository}"
        if status in (301, 302, 303, 307, 308):
            return redirect_target(url, error.headers.get("Location"), what)
        if status == 401:
            raise DownloadError(
                f"the hub does not let everyone read {what}, or there is no such repository (401);"
                " check the name, and log in with `hf auth login` or set HF_TOKEN",
                status=status,
            )
        if status == 403:
            raise DownloadError(
                f"the hub refuses access to {what} (403); accept the licence at {page}, or use a"
                " token that may read it",
                status=status,
            )
        if status == 404:
            at = "" if repository.revision in what else f" at {repository.revision}"
            raise ModelNotFound(f"the hub has no {what}{at} (404); see {page}")
        if status in (408, 416, 429) or status >= 500:
            wait = retry_after(error.headers.get("Retry-After"))
            has_size = status == 416 and error.headers.get("Content-Range")
            raise TransientError(
                f"status {status}", wait, total_size(error.headers) if has_size else None
            )
        raise DownloadError(
            f"the hub answered the request for {what} with status {status}; try again later"
        )


def _check_size(what: str, file: RemoteFile, found: int | None) -> None:
    """Refuse a file of another size than the pinned one at once: a retry would not help."""
    if found not in (None, file.size):
        raise DownloadError(
            f"{what} has {found:,} bytes on the hub, but {file.size:,} are pinned; run the same"
            " command again later, or pin the model again with edgesppo lock --update"
        )
