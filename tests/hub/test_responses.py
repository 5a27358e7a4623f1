"""Any response of a hub, and any setting, ends as an error of one line without the token."""

from __future__ import annotations

import http.client
import http.server
import urllib.error
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import DownloadError, UsageError
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import RemoteFile, parse_repository
from edgesppo.hub.retry import Retry, RetryPolicy, on_retry
from tests.support.answering_hub import REPOSITORY, TOKEN, Answer, ask, refused

if TYPE_CHECKING:
    from pathlib import Path


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
