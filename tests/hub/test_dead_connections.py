"""A hub that drips, never ends or cannot be reached is given up, in bounded time and memory."""

from __future__ import annotations

import errno
import http.server
import itertools
import shutil
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import DownloadError
from edgesppo.hub import throughput
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import RemoteFile
from edgesppo.hub.retry import Retry, on_retry
from tests.support import certificate
from tests.support.answering_hub import REPOSITORY, Answer, ask, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Raw:
    """A server that sends exactly the bytes of `parts`, to one client at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.parts: Callable[[], Iterator[bytes]] = lambda: iter(())
        self._socket = socket.create_server(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{self._socket.getsockname()[1]}")
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.asked += 1
                with connection, suppress(OSError):
                    connection.recv(10_000)
                    for part in self.parts():
                        connection.sendall(part)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def raw(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Raw]:
    assert answer.url
    server = Raw(monkeypatch)
    monkeypatch.setattr(throughput, "WINDOW", 0.02)
    yield server
    server.close()


def dripping(first: bytes) -> Iterator[bytes]:
    yield first
    while True:
        time.sleep(0.002)
        yield b"x"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n"


@pytest.mark.parametrize("first", [b"", HEAD, HEAD + b"\r\n"])
def test_a_server_that_drips_is_given_up(raw: Raw, first: bytes) -> None:
    raw.parts = lambda: dripping(first)
    refused(DownloadError, "less than 8 kB in", "6 times")
    assert raw.asked == 6
    file, waits = RemoteFile("a.bin", 99_999, "0" * 64), list[float]()
    with pytest.raises(DownloadError, match=r"less than 8 kB in .*, 6 times"):
        HubClient(waits.append).read_range(REPOSITORY, file, 0, file.size)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_bytes_are_handed_on_as_they_come(raw: Raw) -> None:
    go_on, file = threading.Event(), RemoteFile("a.bin", 6, "0" * 64)

    def halves() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"
        go_on.wait(20)
        yield b"def"

    raw.parts = halves
    stream = HubClient().stream(REPOSITORY, file, 0, 6)
    assert next(stream) == b"abc"
    go_on.set()
    assert b"".join(stream) == b"def"


@pytest.mark.parametrize(
    "heading",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
        HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_headers_without_end_are_refused_at_once(raw: Raw, heading: bytes) -> None:
    raw.parts = lambda: itertools.repeat(heading)
    refused(DownloadError, "too many headers for a hub")
    assert raw.asked == 1


def test_trailers_without_end_come_to_an_end(raw: Raw) -> None:
    heading = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    raw.parts = lambda: itertools.chain([heading], itertools.repeat(b"X: y\r\n" * 1000))
    file = RemoteFile("a.bin", 6, "0" * 64)
    with pytest.raises(DownloadError, match="the response is not valid HTTP, 6 times"):
        HubClient(lambda _: None).read_range(REPOSITORY, file, 0, file.size)


def _failing(monkeypatch: pytest.MonkeyPatch, error: OSError) -> list[str]:
    """Let every look-up of a name but 127.0.0.1 fail; returns the names that are looked up."""
    found, look_up = list[str](), socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host == "127.0.0.1":
            return look_up(host, *args, **options)
        found.append(host)
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return found


@pytest.mark.parametrize(
    ("error", "attempts", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), 1, "cannot be resolved"),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), 1, "cannot be resolved"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), 2, "cannot be resolved"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), 1, "cannot be reached"),
        (OSError(errno.ENETDOWN, "Network is down"), 1, "cannot be reached"),
    ],
)
def test_a_dead_network_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, error: OSError, attempts: int, said: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid:8443")
    waits, retries = list[float](), list[Retry | None]()
    looked_up = _failing(monkeypatch, error)
    with on_retry(retries.append), pytest.raises(DownloadError) as caught:
        HubClient(waits.append).files(REPOSITORY)
    assert looked_up == ["hub.invalid"] * attempts
    assert waits == [1.0] * (attempts - 1)
    assert [retry.attempts for retry in retries if retry] == [2] * (attempts - 1)
    for word in (said, "hub.invalid", str(error.strerror), "HF_ENDPOINT", "run the same command"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert answer.asked == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_is_not_trusted_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, tmp_path: Path
) -> None:
    cert, key = certificate.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"https://localhost:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "localhost")
    said = "the certificate of localhost is refused: self.signed certificate; set SSL_CERT_FILE"
    with pytest.raises(DownloadError, match=said):
        HubClient(pytest.fail).files(REPOSITORY)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with pytest.raises(DownloadError, match="status 501"):  # this server answers no GET
        HubClient(lambda _: None).files(REPOSITORY)
    server.shutdown()
    server.server_close()
    assert answer.asked == []


def test_a_proxy_that_cannot_be_found_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("https_proxy", "http://user:PASSWORDX@proxy.invalid:3128")
    _failing(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    with pytest.raises(DownloadError, match=r"the name proxy\.invalid cannot be") as caught:
        HubClient(lambda _: None).files(REPOSITORY)
    assert "PASSWORDX" not in str(caught.value)
    assert answer.asked == []


def test_a_network_that_was_there_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """A laptop that changes its network in the middle of a download goes on where it was."""
    waits: list[float] = []
    client = HubClient(waits.append)
    client.files(REPOSITORY)
    gone = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def fail(*_: object, **__: object) -> Any:
        raise gone

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(DownloadError, match="6 times"):
            client.files(REPOSITORY)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    client.files(REPOSITORY)
    assert len(answer.asked) == 2


def test_a_redirect_to_a_name_that_is_not_there_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    answer.status = 302
    answer.headers = {"Location": "http://cdn.invalid/x?Signature=PASSWORDX"}
    _failing(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    refused(DownloadError, "the name cdn.invalid cannot be resolved")
    with pytest.raises(DownloadError) as caught:
        ask()
    assert "PASSWORDX" not in str(caught.value)
