"""HTTP to a server of ours: one request a connection, JSON or a stream of events."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import urllib.parse
from typing import TYPE_CHECKING, Any

from edgesppo.errors import ContextOverflow, EdgesppoError, UsageError
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_CONNECT_S = 30.0
_TIMEOUT_S = 600.0
_EXAMPLE = "expected one like http://127.0.0.1:8080"
_MOST_BYTES = 64 << 20
_DATA = b"data: "
_CERTIFICATES = "SSL_CERT_FILE"  # what Python's ssl trusts instead of the system's


class Client:
    """Asks the server at a URL, with an API key if there is one."""

    def __init__(self, url: str, key: str = "") -> None:
        parts, self._port = _split(url)
        self._scheme, self._host = parts.scheme, parts.hostname or ""
        self._path = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{parts.netloc}{self._path}"
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the server answers with. Raises EdgesppoError."""
        with self._sent(path, body, lambda _: None) as response:
            return json.loads(response.read(_MOST_BYTES))

    def stream(
        self, path: str, body: dict[str, Any], opened: Callable[[socket.socket], None]
    ) -> Iterator[Any]:
        """The data of the events that the server answers with, up to the last one.

        `opened` gets the socket, for `cut`, before anything is sent; what it raises ends the
        stream. Raises EdgesppoError.
        """
        with self._sent(path, body, opened) as response:
            for line in response:
                if line.startswith(_DATA):
                    data = line[len(_DATA) :].strip()
                    if data == b"[DONE]":
                        return
                    found = json.loads(data)
                    if "error" in found:
                        raise _error(found)
                    yield found
            raise ConnectionError("the connection broke off before the answer was complete")

    @contextlib.contextmanager
    def _sent(
        self, path: str, body: dict[str, Any] | None, opened: Callable[[socket.socket], None]
    ) -> Iterator[http.client.HTTPResponse]:
        """The response to a request, whose connection is closed at the end of the block."""
        connection = self._connection()
        data = None if body is None else json.dumps(body)
        try:
            connection.connect()
            connection.sock.settimeout(_TIMEOUT_S)
            opened(connection.sock)
            method = "GET" if data is None else "POST"
            connection.request(method, self._path + path, data, self._headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise _error(_parsed(response.read(_MOST_BYTES)), response.status)
            yield response
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, EdgesppoError):
                raise
            raise self._no_answer(error) from None
        finally:
            connection.close()

    def _no_answer(self, error: Exception) -> EdgesppoError:
        """The error to raise where the network or the server fails, with what to do."""
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = error.verify_message
            advice = f"set {_CERTIFICATES} to the file of a certificate that you made yourself"
        else:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            advice = "is `edgesppo serve` running there?"
        return EdgesppoError(f"no answer from {self.url}: {one_line(reason)}; {advice}")

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=_CONNECT_S, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_S)


def cut(sockets: Iterable[socket.socket]) -> None:
    """End the streams of these sockets, from any thread."""
    for opened in sockets:
        with contextlib.suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)


def _split(url: str) -> tuple[urllib.parse.SplitResult, int | None]:
    """The parts of a URL, and its port. Raises UsageError."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"--url is {url!r}, {_EXAMPLE}") from None
    if "@" in parts.netloc:
        raise UsageError(
            f"--url has a user's name in it, {_EXAMPLE}; EDGESPPO_API_KEY is for the key"
        )
    more = parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or more:
        raise UsageError(f"--url is {url!r}, {_EXAMPLE}")
    return parts, port


def _parsed(data: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(data)
    return {}


def _error(body: Any, status: int | None = None) -> EdgesppoError:
    """What the server says is wrong."""
    told = body.get("error") if isinstance(body, dict) else None
    told = told if isinstance(told, dict) else {}
    message = one_line(str(told.get("message") or f"it answered with the status {status}"))
    if told.get("code") == "context_length_exceeded":
        return ContextOverflow(message, needed=0, available=0, at_least=True)
    if told.get("code") == "invalid_api_key":
        return EdgesppoError(f"the server says: {message}; set EDGESPPO_API_KEY to the key")
    return EdgesppoError(f"the server says: {message}")
