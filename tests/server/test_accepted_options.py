"""Options of real clients that change no answer are accepted; those that would are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.server.settings import Limits
from tests.support.command_line import CAPITAL
from tests.support.live_server import CHAT, Live, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 64
MODEL = "demo-q4_k_m"
MESSAGES = [{"role": "user", "content": CAPITAL}]
COMPLETIONS, RESPONSES, OLLAMA = "/v1/completions", "/v1/responses", "/api/chat"
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": MESSAGES, "temperature": 0},
    COMPLETIONS: {"prompt": CAPITAL, "temperature": 0},
    RESPONSES: {"input": CAPITAL, "temperature": 0},
    OLLAMA: {"model": MODEL, "messages": MESSAGES, "stream": False},
}
# What any request of OpenAI's API may have.
NOTES: dict[str, Any] = {
    "user": "ada",
    "metadata": {"app": "notes"},
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "prompt_cache_retention": "24h",
    "cache_prompt": True,
    "id_slot": -1,
    "chat_template_kwargs": {"enable_thinking": False},
    "ignore_eos": False,
    "reasoning_format": "auto",
    "return_progress": False,
    "timings_per_token": False,
}
CHAT_ONLY: dict[str, Any] = {
    "seed": -1,
    "stop": "",
    "temperature": 1e-8,  # of LangChain
    "store": False,
    "service_tier": "auto",
    "modalities": ["text"],
    "reasoning_effort": "none",
    "verbosity": "medium",
    "function_call": "auto",
    "functions": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "response_format": {"type": "text"},
}
RESPONSES_ONLY: dict[str, Any] = {
    "store": False,
    "service_tier": "default",
    "truncation": "disabled",
    "include": [],
    "background": False,
    "reasoning": {"effort": "none", "summary": None},
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
}
OLLAMA_OPTIONS: dict[str, Any] = {
    "num_thread": 3,
    "num_gpu": -1,
    "main_gpu": 0,
    "num_batch": 512,
    "num_keep": 24,
    "num_ctx": 100_000,
    "repeat_last_n": -1,
    "seed": -1,
    "use_mmap": True,
    "use_mlock": False,
    "low_vram": False,
    "numa": False,
    "penalize_newline": True,
    "vocab_only": False,
    "tfs_z": 1.0,
    "f16_kv": True,
    "logits_all": False,
    "embedding_only": False,
}


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf, limits=Limits(max_tokens=LIMIT)) as running:
        yield running


def text(server: Live, path: str, **more: Any) -> str:
    response = server.client.post(path, json={**ASKED[path], **more})
    assert response.status_code == 200, response.text
    body = response.json()
    if path == OLLAMA:
        found = body["message"]["content"]
    elif path == RESPONSES:
        found = body["output"][0]["content"][0]["text"]
    else:
        (choice,) = body["choices"]
        found = choice["text"] if path == COMPLETIONS else choice["message"]["content"]
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (CHAT, NOTES | CHAT_ONLY),
        (COMPLETIONS, NOTES),
        (RESPONSES, NOTES | RESPONSES_ONLY),
        (OLLAMA, {"keep_alive": "5m", "think": False, "truncate": True, "shift": True}),
        (OLLAMA, {"keep_alive": -1}),
    ],
)
def test_what_changes_no_answer_is_accepted_and_changes_none(
    server: Live, path: str, options: dict[str, Any]
) -> None:
    plain = text(server, path, **({"options": {"temperature": 0}} if path == OLLAMA else {}))
    for name, value in options.items():
        greedy = {"options": {"temperature": 0}} if path == OLLAMA else {}
        assert text(server, path, **{name: value}, **greedy) == plain, name


def test_a_message_of_the_model_is_taken_back_as_clients_write_it(server: Live) -> None:
    function = {"name": "f", "arguments": "{}"}
    call = {"id": "c", "type": "function", "function": function}
    echoed = {**call, "index": 0, "function": {**function, "parsed_arguments": {}}}
    more = {"refusal": None, "parsed": {"a": 1}, "reasoning_content": "thought", "audio": None}
    result = {"role": "tool", "content": "1", "tool_call_id": "c"}

    def ids(call: dict[str, Any], **more: Any) -> list[int]:
        made = {"role": "assistant", "content": None, "tool_calls": [call], **more}
        response = server.client.post("/tokenize", json={"messages": [*MESSAGES, made, result]})
        assert response.status_code == 200, response.text
        found: list[int] = response.json()["tokens"]
        return found

    assert ids(echoed, **more) == ids(call)
    refusal = [{"type": "refusal", "refusal": "I may not."}]
    assert ids(call, content=refusal) == ids(call, content="I may not.")


def test_an_item_of_a_response_is_taken_back_with_keys_that_say_nothing(server: Live) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "1"}
    question = {"role": "user", "content": CAPITAL}
    plain = text(server, RESPONSES, input=[question, call, result])
    echoed = {**call, "async_": None, "namespace": None, "status": None}
    assert text(server, RESPONSES, input=[question, echoed, result]) == plain
    told = {"input": [question, {**call, "async_": True}, result]}
    assert "async_" in server.client.post(RESPONSES, json=told).text


@pytest.mark.parametrize("seed", [2**40, -5, 2**64 - 1])
def test_a_seed_of_64_bits_is_folded(server: Live, seed: int) -> None:
    warm = {"temperature": 2, "max_tokens": 20}
    answers = {text(server, CHAT, **warm, seed=one) for one in (seed, seed % (2**32 - 1))}
    assert len(answers) == 1


def test_ollamas_options_of_computing_are_accepted(server: Live) -> None:
    greedy = {"temperature": 0}
    found = text(server, OLLAMA, options={**greedy, **OLLAMA_OPTIONS})
    assert found == text(server, OLLAMA, options=greedy)


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        (CHAT, {"cache_prompt": "yes"}, "cache_prompt"),
        (CHAT, {"id_slot": 1.5}, "id_slot"),
        (CHAT, {"id_slot": -2}, "id_slot"),
        (CHAT, {"user": 5}, "user"),
        (CHAT, {"metadata": {"a": 5}}, "metadata.a"),
        (CHAT, {"store": True}, "store"),
        (CHAT, {"service_tier": "flex"}, "service_tier"),
        (CHAT, {"ignore_eos": True}, "ignore_eos"),
        (CHAT, {"timings_per_token": True}, "timings_per_token"),
        (CHAT, {"return_progress": True}, "return_progress"),
        (CHAT, {"reasoning_format": "deepseek"}, "reasoning_format"),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs"),
        (CHAT, {"function_call": {"name": "f"}}, "function_call"),
        (COMPLETIONS, {"ignore_eos": True}, "ignore_eos"),
        (COMPLETIONS, {"cache_prompt": 1}, "cache_prompt"),
        (RESPONSES, {"truncation": "auto"}, "truncation"),
        (RESPONSES, {"prompt_cache_key": []}, "prompt_cache_key"),
    ],
)
def test_what_would_change_it_or_is_no_such_value_is_refused_by_name(
    server: Live, path: str, asked: dict[str, Any], param: str
) -> None:
    response = server.client.post(path, json={**ASKED[path], **asked})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"options": {"num_thread": "all"}}, "num_thread"),
        ({"options": {"num_thread": -1}}, "num_thread"),
        ({"options": {"num_gpu": 1.5}}, "num_gpu"),
        ({"options": {"num_keep": -2}}, "num_keep"),
        ({"options": {"use_mmap": 1}}, "use_mmap"),
        ({"options": {"numa": "distribute"}}, "numa"),
        ({"options": {"vocab_only": True}}, "vocabulary"),
        ({"options": {"tfs_z": 0.5}}, "tfs_z"),
        ({"options": {"penalize_newline": False}}, "penalize_newline"),
        ({"options": {"rope_frequency_base": 1e4}}, "rope_frequency_base"),
        ({"keep_alive": [5]}, "keep_alive"),
        ({"truncate": 5}, "truncate"),
    ],
)
def test_ollamas_are_refused_by_name_alike(server: Live, asked: dict[str, Any], word: str) -> None:
    response = server.client.post(OLLAMA, json={**ASKED[OLLAMA], **asked})
    assert response.status_code == 400, response.text
    assert word in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (CHAT, "max_tokens"),
        (CHAT, "max_completion_tokens"),
        (COMPLETIONS, "max_tokens"),
        (RESPONSES, "max_output_tokens"),
    ],
)
def test_a_longer_answer_than_the_server_allows_is_refused_with_the_limit(
    server: Live, path: str, field: str
) -> None:
    response = server.client.post(path, json={**ASKED[path], field: LIMIT + 1})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (field, "invalid_value")
    assert f"{field} is {LIMIT + 1}, expected at most {LIMIT}" in error["message"]
    text(server, path, **{field: LIMIT})


@pytest.mark.parametrize("path", [OLLAMA, "/api/generate"])
def test_ollamas_num_predict_is_cut_to_the_servers_limit(server: Live, path: str) -> None:
    endless = {"logit_bias": {"1": -100, "107": -100}, "num_predict": 10**6}
    for more in ({}, {"raw": True}) if path != OLLAMA else ({},):
        asked = {"model": MODEL, "stream": False, "options": endless, **more}
        said = {"messages": MESSAGES} if path == OLLAMA else {"prompt": CAPITAL}
        body = server.client.post(path, json={**asked, **said}).json()
        assert (body["done_reason"], body["eval_count"]) == ("length", LIMIT)
