"""Any response of a hub, and any setting, ends as an error of one line without the token."""

from __future__ import annotations

import errno
import http.client
import http.server
import itertools
import socket
import threading
import time
import urllib.error
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import DownloadError, EdgesppoError, UsageError
from edgesppo.hub import throughput
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import RemoteFile, Repository, parse_repository
from edgesppo.hub.retry import Retry, RetryPolicy, on_retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REPOSITORY = Repository("owner", "name", "0" * 40)
TOKEN = "hf_aVerySecretToken"


@dataclass
class Answer:
    """The server's response to every path but `/moved`, and the paths that were requested."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"[]"
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answer]:
    given = Answer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def do_GET(self) -> None:
            given.asked.append(self.path)
            moved = self.path.startswith("/moved")
            self.send_response(200 if moved else given.status)
            for key, value in ({} if moved else given.headers).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(given.body)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    given.url = f"http://127.0.0.1:{server.server_port}"
    for name in ("HF_HUB_OFFLINE", "EDGESPPO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", given.url)
    yield given
    server.shutdown()
    server.server_close()
    thread.join()


def ask() -> list[float]:
    """Request a listing; returns the waits between attempts, in seconds."""
    waits: list[float] = []
    HubClient(waits.append).files(REPOSITORY)
    return waits


def refused(kind: type[EdgesppoError], *words: str) -> None:
    with pytest.raises(EdgesppoError) as caught:
        ask()
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in message
    assert TOKEN not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:port/x",
        "http://[bad/",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://127.0.0.1:0/x",
        "http://a b/x",
    ],
)
def test_a_redirect_to_what_is_no_address_is_not_followed(answer: Answer, location: str) -> None:
    answer.status, answer.headers = 302, {"Location": location}
    refused(DownloadError, "the list of files of owner/name")
    assert len(answer.asked) == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://u:PASSWORDX@127.0.0.1:99999/",
        "http://u:PASSWORDX@a..b/x",
        "ftp://u:PASSWORDX@127.0.0.1/x",
        "http://u:0?PASSWORDX@127.0.0.1:port/",
        "http://u:0/PASSWORDX@127.0.0.1:port/",
        "http://u:0#PASSWORDX@127.0.0.1",
        "u:PASSWORDX@127.0.0.1",
        "http://127.0.0.1:99999/x?Signature=PASSWORDX@y",
    ],
)
def test_a_password_in_a_redirect_is_not_shown(answer: Answer, location: str) -> None:
    answer.status, answer.headers = 302, {"Location": location}
    with pytest.raises(DownloadError, match="the list of files of owner/name") as caught:
        ask()
    assert "PASSWORDX" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            http.client.BadStatusLine(f"Authorization: Bearer {TOKEN}"),
            "the response is not valid HTTP",
        ),
        (http.client.UnknownProtocol(TOKEN), "the response is not valid HTTP"),
        (http.client.RemoteDisconnected(TOKEN), "the connection ended early"),
        (http.client.IncompleteRead(TOKEN.encode(), 9), "the connection ended early"),
        (OSError(f"Tunnel connection failed: 407 {TOKEN}"), "the proxy answered with status 407"),
        (OSError(TOKEN), "OSError"),
        (TimeoutError(TOKEN), "timed out"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
    ],
)
def test_a_servers_own_words_are_not_told(error: Exception, said: str) -> None:
    retries: list[Retry | None] = []
    for what in (error, urllib.error.URLError(error)):
        with on_retry(retries.append):
            RetryPolicy("the hub", lambda _: None).failed("a file", what, None, 0)
    assert [retry.reason for retry in retries if retry] == [said] * 2


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "user:word@127.0.0.1"])
def test_a_redirect_to_a_name_that_is_none_is_asked_once(answer: Answer, host: str) -> None:
    answer.status, answer.headers = 302, {"Location": f"http://{host}/x?Signature=secret"}
    with pytest.raises(DownloadError, match="cannot be requested from 'http://") as caught:
        ask()
    assert "secret" not in str(caught.value)
    assert len(answer.asked) == 1


@pytest.mark.parametrize("location", ["http://", "http:///x", "\xe9://x", ""])
def test_redirects_come_to_an_end(answer: Answer, location: str) -> None:
    answer.status, answer.headers = 302, {"Location": location}
    refused(DownloadError, "is redirected more than 5 times")


def test_a_redirect_without_a_place_goes_nowhere(answer: Answer) -> None:
    answer.status = 302
    refused(DownloadError, "is redirected to nowhere")


@pytest.mark.parametrize(
    ("location", "path"),
    [("/moved/\xe9", "/moved/%E9"), ("/moved/a b", "/moved/a%20b"), ("/moved?a=%20", None)],
)
def test_a_redirect_to_odd_letters_is_followed(
    answer: Answer, location: str, path: str | None
) -> None:
    answer.status, answer.headers = 302, {"Location": location}
    ask()
    assert answer.asked[-1] == (path or location)


@pytest.mark.parametrize(
    "wait",
    ["\xb2", "-1", "1e3", "", "Mon, 01 Jan 0001 00:00:00 -0000", "Mon, 01 Jan 0001 00:00:00 +2359"],
)
def test_a_wait_that_is_none_is_chosen_by_us(answer: Answer, wait: str) -> None:
    answer.status, answer.headers = 429, {"Retry-After": wait}
    refused(DownloadError, "status 429, 6 times")
    assert len(answer.asked) == 6


@pytest.mark.parametrize("wait", ["9" * 5000, "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_wait_without_end_is_left_to_the_person(answer: Answer, wait: str) -> None:
    answer.status, answer.headers = 429, {"Retry-After": wait}
    refused(DownloadError, "asks to wait")


@pytest.mark.parametrize("length", ["\xb2", "-1", "many"])
def test_a_length_that_is_none_is_not_believed(answer: Answer, length: str) -> None:
    answer.headers = {"Content-Length": length}
    assert ask() == []


def test_a_length_beyond_all_measure_is_a_connection_that_ended_early(answer: Answer) -> None:
    answer.headers = {"Content-Length": "9" * 5000}
    refused(DownloadError, "ended early")


@pytest.mark.parametrize(
    "endpoint",
    [
        "huggingface.co",
        "127.0.0.1:80",
        "file:///etc",
        "ftp://huggingface.co",
        "http://",
        "https:///models",
        "http://127.0.0.1:99999",
        "http://[bad",
        "http://hub/?a=b",
        "http://hub/#a",
        "https://h\xfcb",
        "https://h ub",
        "https://hub\n.example",
    ],
)
def test_an_endpoint_that_is_no_address_is_named(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    refused(UsageError, f"HF_ENDPOINT is {endpoint!r}", "https://huggingface.co")
    with pytest.raises(UsageError, match="HF_ENDPOINT is"):
        parse_repository("owner/name")
    assert answer.asked == []


def test_a_password_in_the_endpoint_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@hub")
    with pytest.raises(UsageError, match="HF_ENDPOINT is 'hub'") as caught:
        parse_repository("owner/name")
    assert "secret" not in str(caught.value)


def test_a_name_that_cannot_be_one_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://a..b")
    refused(DownloadError, "are HF_ENDPOINT, HTTP_PROXY and HTTPS_PROXY right?")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("http_proxy", "http://a..b:1")
    refused(DownloadError, "are HF_ENDPOINT, HTTP_PROXY and HTTPS_PROXY right?")
    assert answer.asked == []


@pytest.mark.parametrize("quotes", ["\u201c{}\u201d", '"{}"', "{} {}", "{}\xa0x"])
def test_a_token_with_quotation_marks_is_refused_unseen(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, quotes: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", quotes.format(TOKEN, TOKEN))
    refused(UsageError, "HF_TOKEN", "perhaps a quotation mark")
    assert answer.asked == []


def test_a_saved_token_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    (tmp_path / "token").write_bytes(b"\xff")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    refused(UsageError, "`hf auth login`", "UnicodeDecodeError")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path))
    refused(UsageError, "`hf auth login`", "IsADirectoryError")
    assert answer.asked == []


def test_a_repository_that_there_may_not_be_is_told_so(answer: Answer) -> None:
    answer.status = 401  # the real hub's answer to a name that nobody has
    refused(DownloadError, "or there is no such repository (401)", "check the name", "HF_TOKEN")


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


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b1", ["unexpected Content-Encoding, 'gzip'"]),
        ({"Content-Encoding": TOKEN}, b"[]", ["Content-Encoding, an unknown one"]),
        ({}, b"\n<!DOCTYPE html><p>log in", ["received a web page instead of"]),
        ({"Content-Type": "text/plain"}, b"<HTML>log in", ["received a web page instead of"]),
    ],
)
def test_what_is_no_file_is_told_in_words(
    answer: Answer, headers: dict[str, str], body: bytes, words: list[str]
) -> None:
    answer.headers, answer.body = headers, body
    refused(DownloadError, *words)
    with pytest.raises(DownloadError, match=words[0]):
        HubClient().read_verified(REPOSITORY, RemoteFile("a.json", 500, "0" * 40))
    assert len(answer.asked) == 2


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
