"""What the server refuses: with the right status, in OpenAI's form, naming what is to blame."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from edgesppo.server.ollama.requests import ChatBody
from edgesppo.server.openai.chat_request import ChatRequest
from edgesppo.server.openai.completions import CompletionRequest
from edgesppo.server.openai.models import DetokenizeRequest
from edgesppo.server.openai.responses_request import ResponsesRequest
from edgesppo.server.settings import Limits
from tests.support.live_server import CHAT, Live, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

JSON = {"Content-Type": "application/json"}
HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf, limits=Limits(connections=8)) as running:
        yield running
        assert running.chat("What is 2 plus 3?").status_code == 200  # it survived them all


def error(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert "Traceback" not in found["message"]
    return found


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 9}, "n"),
        ({"n": 10**30}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text",
        ),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 1000}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "text", "json_schema": {}}}, "response_format"),
        ({"response_format": {"type": "json_object", "schema": {"type": 5}}}, "response_format"),
        ({"tools": [TOOL, TOOL]}, "two tools have the name 'f'"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tools": [TOOL], "tool_choice": "required", "stop": "x"}, "stop"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "allowed_tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "'custom'"),
        ({"temprature": 1}, "temprature"),
        ({"samplers": ["nothing"]}, "samplers"),
    ],
)
def test_a_bad_parameter_is_named(server: Live, asked: dict[str, Any], param: str) -> None:
    found = error(server.chat("Hi", **asked))
    assert param in f"{found['param']} {found['message']}"


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"store": True}, "storing"),
        ({"modalities": ["text", "audio"]}, "other output"),
        ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"prediction": {"type": "content", "content": "x"}}, "predicted"),
        ({"web_search_options": {}}, "web"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    server: Live, asked: dict[str, Any], word: str
) -> None:
    found = error(server.chat("Hi", **asked))
    assert found["code"] == "unsupported_parameter"
    assert word in found["message"]


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}, "images"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "audio"),
        ({"type": "file", "file": {"file_id": "x"}}, "files"),
    ],
)
def test_a_part_that_is_no_text_is_refused_by_name(
    server: Live, part: dict[str, Any], word: str
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, part]}]
    found = error(server.client.post(CHAT, json={"messages": messages}))
    assert found["code"] == "unsupported_parameter"
    assert word in found["message"]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{}],
        ["Hi"],
        [{"role": "robot", "content": "Hi"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hi"}],
        [{"role": "tool", "content": "5", "tool_call_id": "x"}],
        [*HI, {"role": "tool", "content": "5"}],
        [{"role": "user", "content": "Hi", "tool_calls": []}] * 2000,
    ],
)
def test_messages_that_make_no_conversation_are_refused(server: Live, messages: list[Any]) -> None:
    found = error(server.client.post(CHAT, json={"messages": messages}))
    assert "messages" in f"{found['param']} {found['message']}"


def test_a_prompt_that_does_not_fit_is_refused_with_the_apis_own_code(server: Live) -> None:
    for stream in (False, True):
        found = error(server.chat("word " * 3000, stream=stream))
        assert (found["code"], found["param"]) == ("context_length_exceeded", "messages")


def post(server: Live, content: bytes, **headers: str) -> httpx.Response:
    return server.client.post(CHAT, content=content, headers={**JSON, **headers})


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_json"),
        (b"Hi", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'{"messages": [', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"n": NaN}', "invalid_json"),
        (b'{"temperature": 1e999}', "invalid_json"),
        (b'{"n": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"n": 1, "n": 1}', "duplicate_key"),
        (b'{"messages": [{"role": "user", "role": "user"}]}', "duplicate_key"),
        (json.dumps({str(n): n for n in range(5000)}).encode(), "too_many_keys"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "too_deep"),
        (b"[" * 70 + b"]" * 70, "too_deep"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "bad_text"),
    ],
)
def test_a_body_that_is_no_unambiguous_json_is_refused(
    server: Live, content: bytes, code: str
) -> None:
    assert error(post(server, content))["code"] == code


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ChatRequest, {"messages": [0] * 9999}),
        (ChatRequest, {"messages": [{"role": "user", "content": [0] * 9999}]}),
        (ChatRequest, {"messages": HI, "tools": [0] * 9999}),
        (ChatRequest, {"messages": HI, "logit_bias": {str(n): "" for n in range(9999)}}),
        (CompletionRequest, {"prompt": [{}] * 9999}),
        (CompletionRequest, {"prompt": [[{}] * 9999]}),
        (ResponsesRequest, {"input": [0] * 9999}),
        (ChatBody, {"model": "", "messages": [0] * 9999}),
        (DetokenizeRequest, {"tokens": [""] * 9999}),
    ],
)
def test_of_thousands_of_mistakes_few_are_looked_at(kind: Any, given: dict[str, Any]) -> None:
    """To list them all would take seconds, in which the server does nothing else."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(given)
    assert caught.value.error_count() < 20


def test_a_body_of_another_kind_or_too_large_is_refused(server: Live) -> None:
    other = error(post(server, b"{}", **{"Content-Type": "text/plain"}), 415)
    assert (other["code"], "found 'text/plain'" in other["message"]) == ("not_json", True)
    assert error(post(server, b"{}", **{"Content-Encoding": "gzip"}), 415)
    assert error(post(server, b" " * (2 << 20)), 413)["code"] == "body_too_large"

    def pieces() -> Iterator[bytes]:
        yield from [b" " * 65536] * 32

    chunked = server.client.post(CHAT, content=pieces(), headers=JSON)
    assert error(chunked, 413)["code"] == "body_too_large"


def figures(server: Live) -> str:
    return server.client.get("/metrics").text


def connection(server: Live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30)


def answer(opened: socket.socket, sent: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the error that come back before the connection is closed."""
    opened.sendall(sent)
    head, _, body = opened.makefile("rb").read().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def test_what_is_no_http_is_refused_in_the_same_form(server: Live) -> None:
    for sent in (b"Hello\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\r\n\r\n"):
        with connection(server) as opened:
            status, found = answer(opened, sent)
        assert (status, found["code"]) == (400, "invalid_http")
    assert 'refused_connections_total{reason="invalid_http"} 3' in figures(server)


def test_a_connection_too_many_is_told_so_and_closed(server: Live) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connection(server))
        last = stack.enter_context(connection(server))
        status, found = answer(last, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (status, found["code"]) == (503, "too_many_connections")
    server.wait_until(lambda: len(server.server.server_state.connections) < 8)
    assert 'refused_connections_total{reason="too_many"} ' in figures(server)


def test_far_too_many_connections_are_closed_unanswered(server: Live) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(8 + 64):
            stack.enter_context(connection(server))
        with connection(server) as last:
            assert last.recv(1) == b""
    server.wait_until(lambda: len(server.server.server_state.connections) < 8)


def test_what_is_refused_before_its_route_is_counted_under_its_path(server: Live) -> None:
    for path, label in (("/", "/"), ("/api/tags", "/api/tags"), ("/nothing", "other")):
        assert server.client.get(path, headers={"Host": "evil.example"}).status_code == 403
        assert f'requests_total{{path="{label}",status="403"}} 1.0' in figures(server)


def test_unknown_paths_and_methods_are_refused_in_the_same_form(server: Live) -> None:
    assert "'/nothing'" in error(server.client.get("/nothing"), 404)["message"]
    assert "GET" in error(server.client.get(CHAT), 405)["message"]


@pytest.mark.parametrize(
    ("method", "path", "word"),
    [
        ("POST", "/v1/embeddings", "embedding"),
        ("POST", "/v1/images/generations", "images"),
        ("POST", "/v1/audio/speech", "audio"),
        ("GET", "/v1/responses/resp_1", "storing responses"),
        ("DELETE", "/v1/responses/resp_1", "storing responses"),
        ("POST", "/v1/responses/input_tokens", "tokenize"),
        ("POST", "/v1/responses/compact", "compacting"),
        ("GET", "/v1/files", "files"),
        ("GET", "/v1/files/x/content", "files"),
        ("GET", "/v1/conversations/x/items", "conversations"),
        ("GET", "/v1/batches/x", "batches"),
    ],
)
def test_an_endpoint_that_others_have_is_refused_by_name(
    server: Live, method: str, path: str, word: str
) -> None:
    found = error(server.client.request(method, path), 404)
    assert found["code"] == "unsupported_endpoint"
    assert word in found["message"]


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/api/version", "/api/tags"])
def test_what_can_be_got_can_be_asked_for_its_head(server: Live, path: str) -> None:
    response = server.client.head(path)
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/completions", {"prompt": []}),
        ("/v1/completions", {"prompt": [10**9]}),
        ("/v1/completions", {"prompt": "Hi", "suffix": "x"}),
        ("/v1/completions", {"prompt": "Hi", "best_of": 3}),
        ("/v1/completions", {}),
        ("/v1/responses", {"input": "Hi", "previous_response_id": "resp_1"}),
        ("/v1/responses", {"input": "Hi", "store": True}),
        ("/v1/responses", {"input": "Hi", "background": True}),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "x"}]}),
        ("/v1/responses", {"input": "Hi", "tools": [{"type": "web_search"}]}),
        ("/v1/responses", {"input": "Hi", "tool_choice": {"type": "allowed_tools"}}),
        ("/v1/responses", {"input": "Hi", "reasoning": {"effort": "high"}}),
        ("/v1/responses", {"input": []}),
        ("/tokenize", {}),
        ("/tokenize", {"messages": [{"role": "user", "content": "word " * 3000}]}),
        ("/tokenize", {"content": "Hi", "messages": HI}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": ["a"]}),
    ],
)
def test_the_other_endpoints_refuse_alike(server: Live, path: str, asked: dict[str, Any]) -> None:
    error(server.client.post(path, json=asked))
