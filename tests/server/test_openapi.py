"""What `/openapi.json` says is so: every answer, piece of a stream and error is as described."""

from __future__ import annotations

import copy
import json
import threading
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

import edgesppo
from edgesppo.server import api_keys
from edgesppo.server.ollama.requests import ChatBody, Options
from edgesppo.server.openai.chat_request import ChatRequest
from edgesppo.server.openai.completions import CompletionRequest
from edgesppo.server.openai.responses_request import ResponsesRequest
from edgesppo.server.settings import Limits
from tests.support.live_server import CHAT, Live, events, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

HI = [{"role": "user", "content": "Hi"}]
MODEL = "demo-q4_k_m"
SHORT = {"max_tokens": 4, "temperature": 0}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
RESPONSES_TOOL = {"type": "function", **TOOL["function"]}  # type: ignore[dict-item]
CALL = {"tools": [TOOL], "tool_choice": "required"}
LOGPROBS = {"logprobs": True, "top_logprobs": 2}
USAGE = {"stream_options": {"include_usage": True}}
ASKED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": HI, **SHORT, **LOGPROBS, "n": 2}),
    (CHAT, {"messages": HI, **CALL, "max_tokens": 60}),
    ("/v1/completions", {"prompt": "Hi", **SHORT, "logprobs": 2, "return_tokens": True}),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 2, "metadata": {"a": "b"}}),
    ("/v1/responses", {"input": "Hi", "tools": [RESPONSES_TOOL], "tool_choice": "required"}),
    ("/tokenize", {"content": "Hi"}),
    ("/tokenize", {"content": "Hi \u20ac", "with_pieces": True}),
    ("/detokenize", {"tokens": [5], "with_bytes": True}),
    ("/api/chat", {"model": MODEL, "messages": HI, "stream": False, **LOGPROBS}),
    ("/api/chat", {"model": MODEL, "messages": HI, "stream": False, "tools": [TOOL]}),
    ("/api/chat", {"model": MODEL}),
    ("/api/generate", {"model": MODEL, "prompt": "Hi", "stream": False}),
    ("/api/show", {"model": MODEL}),
]
STREAMED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": HI, **SHORT, **LOGPROBS, **USAGE}),
    (CHAT, {"messages": HI, **CALL, "max_tokens": 60}),
    ("/v1/completions", {"prompt": "Hi", **SHORT, **USAGE, "logprobs": 1, "return_tokens": True}),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 2}),
    ("/v1/responses", {"input": "Hi", "tools": [RESPONSES_TOOL], "tool_choice": "required"}),
    ("/api/chat", {"model": MODEL, "messages": HI, **LOGPROBS}),
    ("/api/generate", {"model": MODEL, "prompt": "Hi"}),
]
GOT = ["/v1/models", f"/v1/models/{MODEL}", "/api/version", "/api/tags", "/api/ps", "/health"]


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf, limits=Limits(body_bytes=2000)) as running:
        yield running


@pytest.fixture(scope="module")
def described(server: Live) -> dict[str, Any]:
    """The description, but no object may have more keys than it names."""
    found: dict[str, Any] = server.client.get("/openapi.json").json()
    for schema in found["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return found


def responses_of(described: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    path = path.replace(MODEL, "{name}")
    found: dict[str, Any] = described["paths"][path][method]["responses"]
    return found


def check(described: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {**copy.deepcopy(schema), "components": described["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def check_response(described: dict[str, Any], method: str, response: httpx.Response) -> None:
    found = responses_of(described, method, response.url.path)[str(response.status_code)]
    check(described, found["content"]["application/json"]["schema"], response.json())


@pytest.mark.parametrize(("path", "asked"), ASKED)
def test_an_answer_is_as_described(
    server: Live, described: dict[str, Any], path: str, asked: dict[str, Any]
) -> None:
    response = server.client.post(path, json=asked)
    assert response.status_code == 200, response.text
    check_response(described, "post", response)


@pytest.mark.parametrize("path", GOT)
def test_what_is_got_is_as_described(server: Live, described: dict[str, Any], path: str) -> None:
    check_response(described, "get", server.client.get(path))


@pytest.mark.parametrize(("path", "asked"), STREAMED)
def test_each_piece_of_a_stream_is_as_described(
    server: Live, described: dict[str, Any], path: str, asked: dict[str, Any]
) -> None:
    response = server.client.post(path, json={**asked, "stream": True})
    assert response.status_code == 200, response.text
    kind = response.headers["content-type"].partition(";")[0]
    item = responses_of(described, "post", path)["200"]["content"][kind]["itemSchema"]
    if kind == "text/event-stream":
        data, pieces = item["properties"]["data"], events(response)
        if "anyOf" in data:
            last, data = data["anyOf"]
            assert pieces.pop() == last["const"]
        item = data["contentSchema"]
    else:
        pieces = [json.loads(line) for line in response.text.splitlines()]
    assert len(pieces) > 1
    for piece in pieces:
        check(described, item, piece)


def test_errors_are_as_described(server: Live, described: dict[str, Any]) -> None:
    json_type = {"Content-Type": "application/json"}
    for path in (CHAT, "/v1/completions", "/v1/responses", "/tokenize", "/api/chat", "/api/show"):
        for status, content, headers in (
            (400, b"{}", json_type),
            (413, b" " * 3000, json_type),
            (415, b"{}", {"Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"}),
            (403, b"{}", {"Host": "evil.example"}),
        ):
            response = server.client.post(path, content=content, headers=headers)
            assert response.status_code == status, response.text
            check_response(described, "post", response)
    for path, asked in ((CHAT, {"messages": HI}), ("/api/generate", {"prompt": "Hi"})):
        response = server.client.post(path, json={**asked, "model": "another"})
        assert response.status_code == 404
        check_response(described, "post", response)


def test_refused_keys_are_as_described(demo_gguf: Path) -> None:
    keys = tuple(api_keys.parse([(1, "bob:secret-of-bob requests=1")], "here"))
    with live(demo_gguf, keys=keys, ready=False) as server:
        bob = {"Authorization": "Bearer secret-of-bob"}
        described = server.client.get("/openapi.json", headers=bob).json()
        check_response(described, "post", server.client.post(CHAT, json={"messages": HI}))
        server.wait_until(lambda: server.worker.status == "ok")
        asked = {"messages": HI, **SHORT}
        found = [server.client.post(CHAT, json=asked, headers=bob) for _ in range(2)]
        assert [response.status_code for response in found] == [200, 429]
        check_response(described, "post", found[1])
        for path in ("/v1/models", "/api/tags"):
            check_response(described, "get", server.client.get(path))


def test_a_server_that_loads_answers_as_described(demo_gguf: Path) -> None:
    go_on = threading.Event()

    def load() -> Any:
        assert go_on.wait(30)
        return edgesppo.load(demo_gguf)

    with live(load, ready=False) as server:
        try:
            described = server.client.get("/openapi.json").json()
            for path in ("/health", "/v1/models", "/api/tags"):
                response = server.client.get(path)
                assert response.status_code == 503
                check_response(described, "get", response)
        finally:
            go_on.set()


def test_what_is_refused_by_name_is_not_described(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    for kind in (ChatRequest, CompletionRequest, ResponsesRequest, Options, ChatBody):
        assert schemas[kind.__name__]["properties"].keys().isdisjoint(kind.REFUSED)


def test_examples_of_requests_are_answered(server: Live, described: dict[str, Any]) -> None:
    for path in (CHAT, "/v1/completions", "/v1/responses"):
        body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        name = body["schema"]["$ref"].rpartition("/")[2]
        (example,) = described["components"]["schemas"][name]["examples"]
        check(described, body["schema"], example)
        check_response(described, "post", server.client.post(path, json=example))


def test_every_status_is_described_by_its_number_and_none_is_422(described: dict[str, Any]) -> None:
    for operations in described["paths"].values():
        for operation in operations.values():
            assert not {"422", "default"} & operation["responses"].keys()
            for status, response in operation["responses"].items():
                assert response["description"], status
                for content in response["content"].values():
                    assert content.get("schema") or content.get("itemSchema"), operation
