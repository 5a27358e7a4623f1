"""`chat --url`: a chat over a server's model is the chat that one would have here."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from edgesppo.errors import Closed, ContextOverflow, EdgesppoError, UsageError
from edgesppo.remote.client import Client
from edgesppo.remote.engine import RemoteEngine
from edgesppo.remote.model import RemoteModel, connect
from edgesppo.remote.tokenizer import RemoteTokenizer
from edgesppo.repl import ModelSource, Setup
from edgesppo.repl.state import ReplState
from edgesppo.sampling.params import SamplingParams
from edgesppo.server import api_keys
from edgesppo.sessions.folder import Sessions
from tests.support import certificate
from tests.support.command_line import CAPITAL, one_line_error, run
from tests.support.live_server import Live, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.engine.request import Event
    from edgesppo.loaded_model import LoadedModel

KEY = "secret-of-ada"
TEXT = "Grüße, <end_of_turn> 你好 👋\n\n"


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf, keys=tuple(api_keys.parse([(1, f"ada:{KEY}")], "here"))) as running:
        yield running


@pytest.fixture(scope="module")
def remote(server: Live) -> Iterator[RemoteModel]:
    with connect(server.url, KEY) as model:
        yield model


def test_a_chat_is_the_same_as_here(remote: RemoteModel, demo: LoadedModel) -> None:
    here, there = demo.chat(temperature=0), remote.chat(temperature=0)
    for question in ("My name is Ada.", "What is my name?", TEXT):
        assert there.ask(question) == here.ask(question)
    assert [m.ids for m in there.messages] == [m.ids for m in here.messages]
    assert there.last is not None
    assert there.last.usage.cached_tokens > 20  # of the turns before
    assert remote.tokenize(TEXT) == demo.tokenize(TEXT)
    assert remote.detokenize(demo.tokenize(TEXT)) == TEXT


def test_sampling_stop_strings_and_limits_are_applied(
    remote: RemoteModel, demo: LoadedModel
) -> None:
    options = {"seed": 5, "temperature": 1.5, "top_k": 40, "logit_bias": {300: -5}}
    assert remote.ask(CAPITAL, **options) == demo.ask(CAPITAL, **options)
    chat = remote.chat(temperature=0, stop=[" is"])
    assert chat.ask(CAPITAL) == "The capital of France"
    chat = remote.chat(temperature=0, max_tokens=2)
    assert chat.ask(CAPITAL) == "The capital"
    assert chat.last is not None
    assert chat.last.finish_reason == "length"


def test_a_stream_that_is_left_ends_on_the_server(babbler: Path) -> None:
    with live(babbler, parallel=1) as server, connect(server.url) as model:
        chat = model.chat(temperature=0, max_tokens=8000)
        stream = chat.stream("Hello")
        for _ in range(5):
            next(stream)
        stream.close()
        server.wait_idle()
        assert chat.messages[-1].finish_reason == "cancelled"


def test_what_the_server_refuses_is_an_error_here(server: Live, remote: RemoteModel) -> None:
    with pytest.raises(EdgesppoError, match="EDGESPPO_API_KEY"):
        connect(server.url, "another-secret")
    with pytest.raises(ContextOverflow):
        remote.ask("word " * 3000)
    with pytest.raises(EdgesppoError, match="server says"):
        remote.ask("word " * 400_000)
    with pytest.raises(UsageError, match="schemas"):
        remote.ask("Hi", schema={"type": "object"})
    assert remote.ask(CAPITAL, temperature=0)


def test_an_answer_is_cancelled_before_the_server_has_begun_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        engine = RemoteEngine(Client(url), cast("Any", None), "demo", 512)
        request = engine.add(engine.prepare([1, 2, 3], SamplingParams()))
        events: list[Event] = []
        asking = threading.Thread(target=lambda: events.extend(engine.stream(request)))
        asking.start()
        connection = listener.accept()[0]
        with connection:
            assert connection.recv(10)
            engine.cancel(request)
            asking.join(30)
            assert not asking.is_alive()
            assert [event.finish_reason for event in events] == ["cancelled"]


def test_an_answer_that_is_cancelled_while_it_connects_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = http.client.HTTPConnection.connect

    def connect_late(connection: http.client.HTTPConnection) -> None:
        engine.cancel(request)
        connect(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", connect_late)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        engine = RemoteEngine(Client(url), cast("Any", None), "demo", 512)
        request = engine.add(engine.prepare([1, 2, 3], SamplingParams()))
        asking = threading.Thread(target=lambda: list(engine.stream(request)))
        asking.start()
        connection = listener.accept()[0]
        with connection:
            connection.settimeout(30)
            assert connection.recv(10) == b""
        asking.join(30)
        assert not asking.is_alive()


def test_an_answer_that_the_server_breaks_off_is_an_error() -> None:
    """Unless it was cancelled here, or the model was closed."""
    event = {"choices": [{"tokens": [{"id": 5, "bytes": [72]}], "finish_reason": None}]}
    answer = f"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: {json.dumps(event)}\n\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as connection:
                        connection.recv(1 << 16)
                        connection.sendall(answer.encode())

        threading.Thread(target=serve, daemon=True).start()
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        tokenizer = RemoteTokenizer.__new__(RemoteTokenizer)
        tokenizer._texts = {}
        engine = RemoteEngine(client, tokenizer, "demo", 512)

        def stream() -> Iterator[Event]:
            events = engine.stream(engine.add(engine.prepare([1, 2, 3], SamplingParams())))
            assert next(events).token == 5
            return events

        with pytest.raises(EdgesppoError, match="broke off before the answer was complete"):
            next(stream())
        left = stream()
        engine.close()
        with pytest.raises(Closed):
            next(left)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_nobody_signed_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = certificate.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                with contextlib.suppress(OSError):
                    context.wrap_socket(listener.accept()[0], server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        client = Client(f"https://localhost:{listener.getsockname()[1]}")
        with pytest.raises(EdgesppoError, match=r"self.signed certificate; set SSL_CERT_FILE"):
            client.ask("/v1/models")
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
        with pytest.raises(EdgesppoError, match="is `edgesppo serve` running"):
            client.ask("/v1/models")


def test_a_url_may_have_a_path_and_is_told_without_secrets(server: Live) -> None:
    assert Client("http://[::1]:80/models/").url == "http://[::1]:80/models"
    client = Client(f"{server.url}/v1/", KEY)
    assert client.ask("/models")["data"]
    with pytest.raises(UsageError, match="user's name") as refused:
        Client("http://ada:hidden@127.0.0.1")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ""),
        ("a-long-secret", "a-long-secret"),
        ("ada:secret:with-colon", "secret:with-colon"),
        ("ada:a-long-secret requests=60", "a-long-secret"),
    ],
)
def test_client_and_server_read_the_same_key(
    text: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(api_keys.VARIABLE, text)
    assert api_keys.to_send() == key
    digests = [known.digest for known in api_keys.from_environment()]
    assert digests == ([api_keys.digest(key)] if key else [])


def test_a_client_has_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(api_keys.VARIABLE, "ada:secret-of-ada,bob:secret-of-bob")
    with pytest.raises(UsageError, match="2 keys") as refused:
        api_keys.to_send()
    assert "secret" not in str(refused.value)


def test_how_the_chat_is_continued_names_the_server(remote: RemoteModel, tmp_path: Path) -> None:
    sessions, url = Sessions(tmp_path), remote._interior.url
    source = ModelSource("there", lambda _: remote)
    state = ReplState(Setup(source, lambda _: source, sessions, sessions.open("two words")))
    state.load_now(lambda *_: None)
    assert state.resume_command() == f"edgesppo chat --url {url} --session 'two words'"
    assert state.session is not None
    state.session.close()


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://127.0.0.1", "127.0.0.1:80", "http://", ""),
        *("http://h:99999", "http://[::1", "http://h:abc", "http://h?x=1"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected one like"):
        connect(url)


def test_the_command_chats_and_tells_what_is_wrong(
    server: Live, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPPO_API_KEY", f"ada:{KEY}")
    lines = "My name is Ada.\nWhat is my name?\n/context\n"
    result = run("chat", "--url", server.url, "--temperature", "0", stdin=lines)
    assert result.exit_code == 0
    assert "Your name is Ada." in result.stdout
    assert server.url in result.stderr
    assert "2 turns" in result.stderr
    assert "in the KV cache, not" not in result.stderr, "the server does not tell"
    nowhere = run("chat", "--url", "http://127.0.0.1:1", stdin="Hi\n")
    assert "edgesppo serve" in one_line_error(nowhere)
    kept = ("chat", "--url", server.url, "--session", "two words")
    for _ in range(2):
        result = run(*kept, stdin="Hi\n")
    assert "Resumed 'two words': 1 turn\n" in result.stderr
    moved = run("chat", demo_gguf, "--session", "two words", stdin="Hi\n").stderr
    assert f"(the last answer was by another model, demo-q4_k_m at {server.url})" in moved
    both = run("chat", "--url", server.url, "demo", stdin="Hi\n")
    assert "leave out 'demo'" in one_line_error(both)
    loads = run("chat", "--url", server.url, "--n-ctx", "64", "--no-drafts", stdin="Hi\n")
    assert "leave out --n-ctx and --drafts" in one_line_error(loads)
