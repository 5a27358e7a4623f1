"""OpenAI's own client, unchanged: every feature that the server has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.server.errors import ApiError
from edgesppo.server.service import Answers
from tests.support.command_line import CAPITAL
from tests.support.live_server import Live, live

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARIS = "The capital of France is Paris."
ASKED: Any = [{"role": "user", "content": CAPITAL}]


class Guess(pydantic.BaseModel):
    city: pydantic.constr(pattern="^(Paris|Rome)$")


class CapitalOf(pydantic.BaseModel):
    country: pydantic.constr(pattern="^(France|Italy)$")


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def options(client: Any) -> dict[str, Any]:
    return {"model": client.models.list().data[0].id, "temperature": 0}


def test_chat_whole_and_streamed(client: Any, options: dict[str, Any]) -> None:
    whole = client.chat.completions.create(messages=ASKED, **options)
    assert whole.choices[0].message.content == PARIS
    pieces = client.chat.completions.create(messages=ASKED, stream=True, **options)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == PARIS


def test_chat_parse_and_tools(client: Any, options: dict[str, Any]) -> None:
    parsed = client.chat.completions.parse(messages=ASKED, response_format=Guess, **options)
    assert isinstance(parsed.choices[0].message.parsed, Guess)
    tool = openai.pydantic_function_tool(CapitalOf)
    with client.chat.completions.stream(
        messages=ASKED, tools=[tool], tool_choice="required", **options
    ) as stream:
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert isinstance(call.function.parsed_arguments, CapitalOf)


def test_several_answers_stream_with_all_that_can_be_asked_for(
    client: Any, options: dict[str, Any]
) -> None:
    asked = {**options, "temperature": 1, "seed": 7, "n": 3, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(messages=ASKED, **asked)
    stream = client.chat.completions.create(
        messages=ASKED, stream=True, stream_options={"include_usage": True}, **asked
    )
    texts, logprobs, usage = [""] * 3, [0] * 3, None
    for piece in stream:
        usage = piece.usage or usage
        for choice in piece.choices:
            texts[choice.index] += choice.delta.content or ""
            logprobs[choice.index] += len(choice.logprobs.content) if choice.logprobs else 0
    assert texts == [choice.message.content for choice in whole.choices]
    assert logprobs == [len(choice.logprobs.content) for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens >= max(logprobs)
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    cut = client.chat.completions.create(messages=ASKED, stop=[" is"], **options)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (
        "The capital of France",
        "stop",
    )


def test_the_asynchronous_client(server: Live, options: dict[str, Any]) -> None:
    async def ask() -> tuple[str, str, str]:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(messages=ASKED, stream=True, **options)
            streamed = [piece.choices[0].delta.content or "" async for piece in stream]
            whole = await client.chat.completions.create(messages=ASKED, **options)
            response = await client.responses.create(input=CAPITAL, **options)
        return "".join(streamed), whole.choices[0].message.content, response.output_text

    assert asyncio.run(ask()) == (PARIS,) * 3


def test_a_response_that_fails_in_its_stream_is_raised(
    client: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise ApiError(504, "of the test", code="timeout")

    monkeypatch.setattr(Answers, "_next", fail)
    with pytest.raises(openai.APIError, match="of the test"):
        list(client.responses.create(input=CAPITAL, stream=True, **options))


def test_completions(client: Any, options: dict[str, Any]) -> None:
    found = client.completions.create(prompt="2 plus 3", n=2, logprobs=1, **options)
    assert len(found.choices) == 2
    pieces = client.completions.create(prompt="2 plus 3", stream=True, **options)
    assert "".join(piece.choices[0].text for piece in pieces) == found.choices[0].text


def test_responses_whole_and_streamed(client: Any, options: dict[str, Any]) -> None:
    first = client.responses.create(input=CAPITAL, instructions="Be brief.", **options)
    assert (first.output_text, first.status) == (PARIS, "completed")
    again = [{"role": "user", "content": CAPITAL}, *first.output, *ASKED]
    assert client.responses.create(input=again, **options).output_text
    with client.responses.stream(input=CAPITAL, **options) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == PARIS
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    cut = client.responses.create(input=CAPITAL, max_output_tokens=2, **options)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_responses_parse_and_tools(client: Any, options: dict[str, Any]) -> None:
    parsed = client.responses.parse(input=CAPITAL, text_format=Guess, **options)
    assert isinstance(parsed.output_parsed, Guess)
    tool = openai.pydantic_function_tool(CapitalOf)["function"]
    asked = {"tools": [{"type": "function", **tool}], "tool_choice": "required", **options}
    (call,) = client.responses.create(input=CAPITAL, **asked).output
    with client.responses.stream(input=CAPITAL, **asked) as stream:
        (streamed,) = stream.get_final_response().output
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments) != ("", "")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Paris"}
    asked = {**asked, "tool_choice": "none"}
    turns = [{"role": "user", "content": CAPITAL}, call, result]
    assert client.responses.create(input=turns, **asked).output_text


def test_errors_are_the_clients_own(client: Any, options: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            messages=[{"role": "user", "content": "word " * 3000}], **options
        )
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(messages=ASKED, model="gpt-4")
