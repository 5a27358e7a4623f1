"""/v1/chat/completions over HTTP: what is asked for comes back, whole or as a stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command_line import CAPITAL
from tests.support.live_server import CHAT, GREEDY, Live, events, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARIS = "The capital of France is Paris."
SUM = {
    "type": "object",
    "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["sum"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf) as running:
        yield running


def message(server: Live, text: str = CAPITAL, **more: Any) -> dict[str, Any]:
    response = server.chat(text, **more)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return {**choice["message"], "finish_reason": choice["finish_reason"]}


def streamed(server: Live, text: str = CAPITAL, **more: Any) -> list[Any]:
    found = events(server.chat(text, stream=True, **more))
    assert found.pop() == "[DONE]"
    return found


def joined(found: list[Any], index: int = 0) -> str:
    choices = [choice for event in found for choice in event["choices"]]
    return "".join(c["delta"].get("content", "") for c in choices if c["index"] == index)


def test_an_answer_has_the_form_of_the_api(server: Live) -> None:
    body = server.chat(CAPITAL).json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": PARIS, "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert body["timings"]["ttft_s"] > 0


def test_timings_and_tokens_are_told_alike_in_a_stream_and_as_a_whole(server: Live) -> None:
    asked = {"input": CAPITAL, "temperature": 0}
    whole = server.client.post("/v1/responses", json=asked).json()
    *_, last = events(server.client.post("/v1/responses", json={**asked, "stream": True}))
    assert whole["timings"].keys() == last["response"]["timings"].keys()
    assert whole["timings"]["ttft_s"] > 0
    asked = {"prompt": "I like", "return_tokens": True, **GREEDY, "stop": ["eat"]}
    whole = server.client.post("/v1/completions", json=asked).json()
    pieces = events(server.client.post("/v1/completions", json={**asked, "stream": True}))[:-1]
    told = [token for piece in pieces for token in piece["choices"][0].get("tokens", ())]
    assert len(told) == 1, "up to the stop"
    assert told == whole["choices"][0]["tokens"]
    assert whole["choices"][0]["finish_reason"] == "stop"


def test_a_stream_is_the_same_answer_in_pieces(server: Live) -> None:
    found = streamed(server)
    assert joined(found) == PARIS
    assert {event["object"] for event in found} == {"chat.completion.chunk"}
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [e["choices"][0]["finish_reason"] for e in found] == [None] * (len(found) - 1) + ["stop"]
    assert all("usage" not in event for event in found)


def test_a_stream_ends_with_the_usage_if_asked(server: Live) -> None:
    found = streamed(server, stream_options={"include_usage": True})
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 7
    assert all(event["usage"] is None for event in found[:-1])


def test_a_prompt_that_was_asked_before_is_cached(server: Live) -> None:
    server.chat("What is 2 plus 3?")
    usage = server.chat("What is 2 plus 3?").json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


def test_the_same_seed_gives_the_same_answer_and_n_gives_several(server: Live) -> None:
    asked: dict[str, Any] = {"n": 3, "temperature": 20, "top_p": 1, "seed": 7, "max_tokens": 9}
    # The first time its cells lie elsewhere in the cache, so that sums of floats differ a little:
    # too little to matter, but at such a temperature most tokens are almost equally likely.
    server.chat("Hello", **asked)
    first, second = server.chat("Hello", **asked).json(), server.chat("Hello", **asked).json()
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert len(set(texts)) == 3
    found = streamed(server, "Hello", **asked)
    assert [joined(found, index) for index in range(3)] == texts


def test_max_tokens_in_both_spellings_cuts_an_answer(server: Live) -> None:
    assert message(server, max_tokens=2)["content"] == "The capital"
    body = {"messages": [{"role": "user", "content": CAPITAL}], "temperature": 0}
    response = server.client.post(CHAT, json={**body, "max_completion_tokens": 2})
    choice = response.json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The capital", "length")


def test_a_stop_string_ends_an_answer_and_is_no_part_of_it(server: Live) -> None:
    assert message(server, stop=" is")["content"] == "The capital of France"
    assert joined(streamed(server, stop=["nowhere", " France"])) == "The capital of"


def test_a_bias_bans_a_token(server: Live) -> None:
    (the,) = server.client.post("/tokenize", json={"content": "The"}).json()["tokens"]
    assert not message(server, logit_bias={str(the): -100})["content"].startswith("The")


def test_logprobs_are_given_for_each_token(server: Live) -> None:
    choice = server.chat(CAPITAL, logprobs=True, top_logprobs=2).json()["choices"][0]
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == PARIS
    assert all(len(entry["top_logprobs"]) == 2 for entry in content)
    assert all(entry["logprob"] <= 0 for entry in content)
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]
    found = streamed(server, logprobs=True, top_logprobs=2)
    pieces = [event["choices"][0]["logprobs"] for event in found]
    assert [entry for piece in pieces if piece for entry in piece["content"]] == content


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "s", "schema": SUM, "strict": True}},
        {"type": "json_schema", "schema": SUM},
        {"type": "json_object", "schema": SUM},
    ],
)
def test_a_schema_binds_the_answer_in_both_forms(server: Live, form: dict[str, Any]) -> None:
    found = message(server, "What is 2 plus 3?", response_format=form, max_tokens=64)
    value = json.loads(found["content"])
    assert value.keys() == {"sum"}
    assert 0 <= value["sum"] <= 99


def test_json_object_binds_the_answer_to_an_object(server: Live) -> None:
    found = message(server, "Hello", response_format={"type": "json_object"})
    assert found["content"].lstrip().startswith("{")
    if found["finish_reason"] == "stop":
        assert isinstance(json.loads(found["content"]), dict)


def test_an_assistants_last_message_is_continued(server: Live) -> None:
    messages = [
        {"role": "user", "content": CAPITAL},
        {"role": "assistant", "content": "The capital of"},
    ]
    body = server.client.post(CHAT, json={"messages": messages, "temperature": 0}).json()
    assert body["choices"][0]["message"]["content"] == " France is Paris."


def prompt(server: Live, *messages: dict[str, Any]) -> str:
    ids = server.client.post("/tokenize", json={"messages": messages, "with_pieces": True})
    assert ids.status_code == 200, ids.text
    return "".join(token["piece"] for token in ids.json()["tokens"])


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_no_message_is_dropped_whatever_their_order(server: Live) -> None:
    told = prompt(
        server,
        turn("system", "S"),
        turn("developer", "D"),
        turn("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        turn("user", "c"),
        {**turn("assistant", "d"), "name": "Eve"},
        turn("system", "E"),
        turn("user", "f"),
    )
    assert told == (
        "<bos><start_of_turn>user\nS\n\nD\n\nab\n\nc<end_of_turn>\n<start_of_turn>model\nEve: d"
        "<end_of_turn>\n<start_of_turn>user\nE\n\nf<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_system_text_alone_is_what_is_asked(server: Live) -> None:
    told = prompt(server, turn("system", "S"))
    assert told == "<bos><start_of_turn>user\nS<end_of_turn>\n<start_of_turn>model\n"


def test_what_looks_like_a_control_token_is_text(server: Live) -> None:
    ids = server.client.post("/tokenize", json={"messages": [turn("user", "<end_of_turn>")]})
    plain = server.client.post("/tokenize", json={"messages": [turn("user", "a")]})
    end = 107 if 107 in plain.json()["tokens"] else plain.json()["tokens"][-5]
    assert ids.json()["tokens"].count(end) == plain.json()["tokens"].count(end)


def test_tokens_become_the_text_again(server: Live) -> None:
    text = "Grüße, 你好 👋"
    ids = server.client.post("/tokenize", json={"content": text}).json()["tokens"]
    assert server.client.post("/detokenize", json={"tokens": ids}).json() == {"content": text}


def test_the_model_is_listed_and_another_one_is_not_there(server: Live) -> None:
    (model,) = server.client.get("/v1/models").json()["data"]
    assert server.client.get(f"/v1/models/{model['id']}").json() == model
    assert server.chat(CAPITAL, model=model["id"]).status_code == 200
    for response in (server.chat(CAPITAL, model="gpt-4"), server.client.get("/v1/models/gpt-4")):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"
