"""Ollama's API, asked by Ollama's own client, unchanged."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.server.backend import Backend
from edgesppo.server.ollama.answers import plan_of
from edgesppo.server.ollama.requests import GenerateBody
from edgesppo.server.settings import Limits
from tests.support.command_line import CAPITAL
from tests.support.live_server import Live, live

ollama = pytest.importorskip("ollama")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

PARIS = "The capital of France is Paris."
ASKED: Any = [{"role": "user", "content": CAPITAL}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[Any]:
    made = ollama.Client(host=server.url, trust_env=False)
    yield made
    made._client.close()


@pytest.fixture(scope="module")
def asked(client: Any) -> dict[str, Any]:
    return {"model": client.list().models[0].model, "options": {"temperature": 0}}


def test_chat_and_generate_whole_and_streamed(client: Any, asked: dict[str, Any]) -> None:
    whole = client.chat(messages=ASKED, **asked)
    assert (whole.message.content, whole.done, whole.done_reason) == (PARIS, True, "stop")
    assert whole.eval_count == 7
    pieces = list(client.chat(messages=ASKED, stream=True, **asked))
    assert "".join(piece.message.content for piece in pieces) == PARIS
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert client.generate(prompt=CAPITAL, **asked).response == PARIS
    pieces = list(client.generate(prompt=CAPITAL, stream=True, **asked))
    assert "".join(piece.response for piece in pieces) == PARIS


def test_the_asynchronous_client(server: Live, asked: dict[str, Any]) -> None:
    async def ask() -> tuple[str, str]:
        client = ollama.AsyncClient(host=server.url, trust_env=False)
        pieces = await client.chat(messages=ASKED, stream=True, **asked)
        streamed = [piece.message.content async for piece in pieces]
        whole = await client.generate(prompt=CAPITAL, **asked)
        await client._client.aclose()
        return "".join(streamed), whole.response

    assert asyncio.run(ask()) == (PARIS, PARIS)


def test_options_system_and_raw_prompts_count(client: Any, asked: dict[str, Any]) -> None:
    options = {"temperature": 0, "num_predict": 2, "stop": ["nothing"], "num_ctx": 64, "seed": -1}
    cut = client.chat(messages=ASKED, model=asked["model"], options=options)
    assert (cut.message.content, cut.done_reason) == ("The capital", "length")
    with_system = client.generate(prompt=CAPITAL, system="Be brief.", **asked)
    raw = client.generate(prompt=CAPITAL, raw=True, **asked)
    plain = client.generate(prompt=CAPITAL, **asked)
    counts = [r.prompt_eval_count for r in (with_system, plain, raw)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3


def test_unlimited_means_what_the_server_allows(demo: LoadedModel) -> None:
    backend, limits = Backend(demo), Limits(max_tokens=5000)

    def longest(**more: Any) -> int:
        body = GenerateBody(model="", prompt="Hi", **more)
        return plan_of(body, backend, limits).params.max_tokens

    assert longest() == 2048
    assert longest(options={"num_predict": -1}) == 5000
    assert longest(options={"num_predict": -2}, raw=True) == 5000


@pytest.mark.parametrize("format_", [CITY, "json"])
def test_a_format_binds_the_answer(client: Any, asked: dict[str, Any], format_: Any) -> None:
    options = {"temperature": 0, "num_predict": 60}
    found = client.chat(messages=ASKED, model=asked["model"], format=format_, options=options)
    text = found.message.content
    assert text.lstrip().startswith("{")
    if format_ == CITY:
        assert json.loads(text)["city"] in ("Paris", "Rome")


def test_calls_of_tools_and_their_results_go_through(client: Any, asked: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": CITY}}
    call = {"function": {"name": "find", "arguments": {"city": "Rome"}}}
    turns = [
        *ASKED,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "found", "tool_name": "find"},
    ]
    found = client.chat(messages=turns, tools=[tool], **asked).message
    assert found.content or found.tool_calls[0].function.name == "find"


def test_a_call_that_was_left_without_a_result_ends_no_conversation(
    client: Any, asked: dict[str, Any]
) -> None:
    """A stopped agent leaves such; a result too many is told by the name that the client gave."""
    call = {"function": {"name": "find", "arguments": {}}}
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    for last in ([], ASKED):
        assert client.chat(messages=[*ASKED, called, *last], **asked).done
    result = {"role": "tool", "content": "x", "tool_name": "find"}
    with pytest.raises(ollama.ResponseError, match=r"messages\.3\.tool_name is 'find'"):
        client.chat(messages=[*ASKED, called, result, result], **asked)


def test_the_time_of_a_single_token_is_told(client: Any, asked: dict[str, Any]) -> None:
    found = client.generate(**{**asked, "prompt": "Hi", "options": {"num_predict": 1}})
    assert found.eval_count == 1
    assert found.eval_duration > 0


def test_the_model_is_told_of(client: Any, asked: dict[str, Any]) -> None:
    card = client.show(asked["model"])
    assert card.modelinfo["gemma2.context_length"] == 512
    assert client.ps().models[0].model == asked["model"]
    assert client.list().models[0].details.quantization_level == "Q4_K_M"


def test_what_would_change_models_is_refused(client: Any) -> None:
    for refused in (
        lambda: client.pull("x"),
        lambda: client.create("x", from_="y"),
        lambda: client.delete("x"),
        lambda: client.copy("x", "y"),
    ):
        with pytest.raises(ollama.ResponseError, match="not supported"):
            refused()


@pytest.mark.parametrize(
    "more",
    [
        {"options": {"repeat_last_n": -2}},
        {"options": {"num_thread": "all"}},
        {"options": {"num_predict": 0}},
        {"options": {"temprature": 0}},
        {"options": {"temperature": "hot"}},
        {"think": True},
        {"model": "llama3"},
        {"format": {"type": "nothing"}},
        {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]},
        {"messages": [{"role": "tool", "content": "x", "tool_name": "f"}]},
        {"messages": [{"role": "user", "content": "word " * 3000}]},
    ],
)
def test_what_cannot_be_done_is_refused_in_ollamas_form(
    server: Live, asked: dict[str, Any], more: dict[str, Any]
) -> None:
    body = {"model": asked["model"], "messages": ASKED, **more}
    response = server.client.post("/api/chat", json=body)
    assert response.status_code in (400, 404)
    assert list(response.json()) == ["error"]
    assert isinstance(response.json()["error"], str)


def test_a_raw_prompt_takes_a_format_and_logprobs_but_no_system_text(
    client: Any, asked: dict[str, Any]
) -> None:
    raw = {"prompt": CAPITAL, "raw": True, **asked}
    answer = client.generate(format=CITY, logprobs=True, **raw)
    assert json.loads(answer.response)["city"] in ("Paris", "Rome")
    assert len(answer.logprobs) == answer.eval_count
    with pytest.raises(ollama.ResponseError, match="takes no system text"):
        client.generate(system="Be brief.", **raw)
