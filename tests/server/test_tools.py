"""Tools: whatever the model says, a call names a tool that exists, and its arguments are valid."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from edgesppo import schema
from edgesppo.errors import UsageError
from edgesppo.openai_api.tools import AnswerParser, CallParser
from edgesppo.schema import limits
from edgesppo.server.ollama.answers import OllamaReply
from edgesppo.server.ollama.requests import ChatBody
from tests.support.command_line import CAPITAL
from tests.support.live_server import CHAT, Live, events, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMAS = {
    "capital_of": {
        "type": "object",
        "properties": {"country": {"enum": ["France", "Italy"]}},
        "required": ["country"],
        "additionalProperties": False,
    },
    "add": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["a"],
        "additionalProperties": False,
    },
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
ENOUGH = 200


@pytest.fixture(scope="module")
def server(demo_gguf: Path) -> Iterator[Live]:
    with live(demo_gguf) as running:
        yield running


def check(call: dict[str, Any]) -> None:
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    jsonschema.validate(
        json.loads(call["function"]["arguments"]), SCHEMAS[call["function"]["name"]]
    )


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("choice", ["required", named("add"), named("capital_of")])
def test_a_call_that_is_asked_for_is_valid(server: Live, choice: Any) -> None:
    asked = {"tools": TOOLS, "tool_choice": choice, "max_tokens": ENOUGH}
    (found,) = server.chat(CAPITAL, **asked).json()["choices"]
    assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", None)
    (call,) = found["message"]["tool_calls"]
    check(call)
    if choice != "required":
        assert call["function"]["name"] == choice["function"]["name"]


def test_a_streamed_call_is_the_same_call(server: Live) -> None:
    asked = {"tools": TOOLS, "tool_choice": "required", "max_tokens": ENOUGH}
    whole = server.chat(CAPITAL, **asked).json()["choices"][0]["message"]["tool_calls"][0]
    found = events(server.chat(CAPITAL, stream=True, **asked))[:-1]
    deltas = [e["choices"][0]["delta"] for e in found]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"] == {"name": whole["function"]["name"], "arguments": ""}
    assert all(set(call) == {"index", "function"} for call in calls[1:])
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert arguments == whole["function"]["arguments"]
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_several_calls_come_where_they_are_asked_for(server: Live) -> None:
    """The end of a line is made likely, so there are as many calls as may be."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    asked = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": True}
    asked |= {"max_tokens": 300, "logit_bias": {"108": 100}}
    (found,) = server.chat(CAPITAL, **asked).json()["choices"]
    calls = found["message"]["tool_calls"]
    assert (len(calls), found["finish_reason"]) == (8, "tool_calls")
    assert {call["function"]["name"] for call in calls} <= {"f", "g"}
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{}] * 8
    assert len({call["id"] for call in calls}) == 8
    streamed: dict[int, dict[str, str]] = {}
    for event in events(server.chat(CAPITAL, stream=True, **asked))[:-1]:
        for call in event["choices"][0]["delta"].get("tool_calls", ()):
            known = streamed.setdefault(call["index"], {"name": "", "arguments": ""})
            known["name"] += call["function"].get("name", "")
            known["arguments"] += call["function"]["arguments"]
    assert [streamed[n] for n in range(8)] == [call["function"] for call in calls]


@pytest.mark.parametrize("stream", [False, True])
def test_every_dialect_takes_several_calls(server: Live, stream: bool) -> None:
    """The end of a line is made likely, so there are as many calls as may be."""
    functions = [{"name": name} for name in ("f", "g")]
    data: dict[str, Any] = {
        "input": CAPITAL,
        "tools": [{"type": "function", **function} for function in functions],
        "tool_choice": "required",
        "parallel_tool_calls": True,
        "logit_bias": {"108": 100},
        "stream": stream,
    }
    response = server.client.post("/v1/responses", json=data)
    whole = events(response)[-1]["response"] if stream else response.json()
    assert (whole["status"], whole["parallel_tool_calls"]) == ("completed", True)
    assert [item["type"] for item in whole["output"]] == ["function_call"] * 8
    assert [item["arguments"] for item in whole["output"]] == ["{}"] * 8
    assert len({item["call_id"] for item in whole["output"]}) == 8
    if stream:
        done = [e for e in events(response) if e["type"] == "response.output_item.done"]
        assert [e["item"] for e in done] == whole["output"]
        assert [e["output_index"] for e in done] == list(range(8))


def test_ollamas_calls_may_be_several_too() -> None:
    """Its requests cannot make the end of a line likely, so an answer is given here."""
    body = ChatBody.model_validate({"model": "m", "messages": [], "tools": TOOLS})
    assert body.as_chat(512).parallel_tool_calls
    text = "".join(
        f'{{"name": "add", "arguments": {{"a": {n}}}}}{end}' for n, end in ((1, "\n"), (2, ""))
    )
    reply = OllamaReply(body, chat=True)
    pieces = [reply.piece(text[:9], done=False), reply.piece(text[9:], done=True)]
    assert pieces[0]["message"] == {"role": "assistant", "content": ""}
    assert pieces[1]["message"]["tool_calls"] == [
        {"function": {"name": "add", "arguments": {"a": n}}} for n in (1, 2)
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cut_off_before_its_name_is_text(server: Live, stream: bool) -> None:
    asked = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 4, "stream": stream}
    response = server.chat(CAPITAL, **asked)
    if stream:
        found = [event["choices"][0] for event in events(response)[:-1]]
        message = {"content": "".join(choice["delta"].get("content", "") for choice in found)}
        assert not any("tool_calls" in choice["delta"] for choice in found)
    else:
        found = response.json()["choices"]
        message = found[0]["message"]
    assert "tool_calls" not in message
    assert message["content"].startswith("{")
    assert found[-1]["finish_reason"] == "length"
    data = {"tools": [{"type": "function", **TOOLS[0]["function"]}], "tool_choice": "required"}
    data |= {"input": CAPITAL, "max_output_tokens": 4, "stream": stream, "temperature": 0}
    response = server.client.post("/v1/responses", json=data)
    done = events(response)[-1]["response"] if stream else response.json()
    assert (done["status"], done["output"][0]["type"]) == ("incomplete", "message")
    assert done["output"][0]["content"][0]["text"] == message["content"]


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_model_that_may_choose_can_answer_with_text(server: Live, choice: Any) -> None:
    asked = {"tools": TOOLS, "tool_choice": choice}
    (found,) = server.chat(CAPITAL, **asked).json()["choices"]
    message = found["message"]
    if "tool_calls" in message:
        assert choice != "none"
        check(message["tool_calls"][0])
    else:
        assert (message["content"], found["finish_reason"]) == (
            "The capital of France is Paris.",
            "stop",
        )


def test_results_of_tools_come_back_as_a_users_turn(server: Live) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 5}'},
    }
    messages = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "14"},
    ]
    ids = server.client.post("/tokenize", json={"messages": messages, "with_pieces": True}).json()
    told = "".join(token["piece"] for token in ids["tokens"])
    assert '<start_of_turn>model\n{"name": "add", "arguments": {"a": 5}}<end_of_turn>' in told
    assert "<start_of_turn>user\nResult of add:\n14<end_of_turn>" in told
    unanswered = server.client.post(CHAT, json={"messages": messages[:2]})
    assert unanswered.status_code == 400


NESTED = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/Point"}, "then": {"$ref": "#"}},
    "required": ["at"],
    "additionalProperties": False,
    "$defs": {
        "Point": {
            "type": "object",
            "properties": {"$ref": {"const": "x"}, "y": {"type": "integer", "maximum": 9}},
            "required": ["$ref", "y"],
            "additionalProperties": False,
        }
    },
}


def test_references_in_a_tools_schema_lead_into_it(server: Live) -> None:
    functions = [{"name": name, "parameters": NESTED} for name in ("go", "come")]
    tools = [{"type": "function", "function": function} for function in functions]
    asked = {"tools": tools, "tool_choice": named("come"), "max_tokens": ENOUGH, "n": 4}
    answers = server.chat(CAPITAL, temperature=1.5, seed=1, **asked).json()["choices"]
    calls = [a["message"]["tool_calls"][0] for a in answers if a["finish_reason"] == "tool_calls"]
    found = [json.loads(call["function"]["arguments"]) for call in calls]
    assert any("then" in arguments for arguments in found)
    for arguments in found:
        jsonschema.validate(arguments, NESTED)


def test_the_schemas_of_all_tools_together_may_be_only_so_complex(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_WORK", limits.MAX_WORK // 10)
    parameters = {"type": "object", "properties": {"x": {"pattern": "^.{0,200}$"}}}
    tools = [
        {"type": "function", "function": {"name": f"f{n}", "parameters": parameters}}
        for n in range(32)
    ]
    error = server.chat("Hi", tools=tools).json()["error"]
    assert "too complex" in error["message"]


ODD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 3, "maximum": 5, "multipleOf": 1},
        "m": {"patternProperties": {"^x": {"const": 1}}},
        "o": {"oneOf": [{}, {"pattern": "(?!x)", "format": "odd"}]},
    },
    "required": ["n"],
}


def test_of_an_odd_schema_what_can_be_bound_is_bound_unless_it_is_strict(server: Live) -> None:
    tool = {"type": "function", "function": {"name": "odd", "parameters": ODD}}
    asked = {"tool_choice": "required", "max_tokens": ENOUGH, "n": 4, "temperature": 1.5, "seed": 1}
    response = server.chat(CAPITAL, tools=[tool], **asked)
    assert response.status_code == 200, response.text
    answers = response.json()["choices"]
    calls = [a["message"]["tool_calls"][0] for a in answers if a["finish_reason"] == "tool_calls"]
    assert calls
    assert all(3 <= json.loads(call["function"]["arguments"])["n"] <= 5 for call in calls)
    assert schema.loosened(ODD)["properties"] == {
        "n": {"type": "integer", "minimum": 3, "maximum": 5},
        "m": {"additionalProperties": {"const": 1}},
        "o": {"anyOf": [{}, {}]},
    }
    tool["function"]["strict"] = True
    error = server.chat("Hi", tools=[*TOOLS, tool]).json()["error"]
    assert error["param"] == "tools.2"
    assert "'odd'" in error["message"]


@pytest.mark.parametrize(
    ("odd", "loosened"),
    [
        (
            {"patternProperties": {"^x": {"const": 1}}, "additionalProperties": {"minimum": 0}},
            {"additionalProperties": True},
        ),
        (
            {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1e308},
            {"type": "number", "minimum": 0},
        ),
        ({"type": "array", "maxItems": 10**6}, {"type": "array"}),
        ({"enum": ["a"], "maxLength": 9}, {"enum": ["a"]}),
    ],
)
def test_a_loosened_schema_can_be_followed(odd: Any, loosened: Any) -> None:
    assert schema.loosened(odd) == loosened
    with pytest.raises(UsageError):
        schema.grammar(odd)
    schema.grammar(loosened)


CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"enum": ["Paris", "Rome"]}, "arguments": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
AS_CITY = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", ["P", "c"])  # of the name: of a city, or of a function
def test_with_tools_and_a_format_an_answer_is_a_call_or_has_the_format(
    server: Live, first: str, stream: bool, several: bool
) -> None:
    tokens = [server.client.post("/tokenize", json={"content": one}).json() for one in (first, ",")]
    likely = {"logit_bias": {str(one["tokens"][-1]): 100 for one in tokens}}
    asked = {"tools": TOOLS, "response_format": AS_CITY, "parallel_tool_calls": several}
    response = server.chat(CAPITAL, stream=stream, **asked, **likely, max_tokens=ENOUGH)
    text, call, end = "", "", ""
    for choice in (
        [choice for event in events(response)[:-1] for choice in event["choices"]]
        if stream
        else response.json()["choices"]
    ):
        found = choice["delta" if stream else "message"]
        text += found.get("content") or ""
        call += "".join(one["function"]["arguments"] for one in found.get("tool_calls", ()))
        end = choice["finish_reason"] or end
    if first == "P":
        assert (json.loads(text)["name"], call, end) == ("Paris", "", "stop")
        assert json.loads(text)["arguments"] >= 0, "it looks like a call, and is none"
    else:
        assert text == ""
        assert (json.loads(call).keys(), end) == ({"country"}, "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_a_stop_text_cuts_is_not_said_to_be_whole(server: Live, stream: bool) -> None:
    brace = server.client.post("/tokenize", json={"content": "{"}).json()["tokens"][-1]
    likely = {"logit_bias": {str(brace): 100}, "max_tokens": 200}
    asked = {"tools": TOOLS, "stop": ['"a"', '"country"'], "stream": stream, **likely}
    response = server.chat("Add.", **asked)
    assert response.status_code == 200, response.text
    found = events(response)[-2] if stream else response.json()
    assert found["choices"][0]["finish_reason"] == "stop"


def test_a_tool_whose_schema_cannot_be_followed_is_named(server: Live) -> None:
    bad = {"type": "function", "function": {"name": "bad", "parameters": {"type": "nothing"}}}
    error = server.chat("Hi", tools=[*TOOLS, bad]).json()["error"]
    assert error["param"] == "tools.2"
    assert "'bad'" in error["message"]


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize("arguments", ["{}", '{"a": {"b": "}"}}', '{"a": "\\"}"}'])
def test_a_call_is_split_alike_however_it_arrives(size: int, arguments: str) -> None:
    text = f'{{"name": "f", "arguments": {arguments}}}'
    parser, found = CallParser({"f"}), ""
    for start in range(0, len(text), size):
        assert parser.text(text[start : start + size]) == ""
        found += parser.arguments()
    assert (parser.name, found) == ("f", arguments)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_an_answer_is_text_or_calls_however_it_arrives(size: int) -> None:
    def split(answer: str) -> tuple[str, list[str], list[str]]:
        parser, text, names, arguments = AnswerParser({"f", "g"}), "", [], ["", ""]
        for start in range(0, len(answer), size):
            sure, calls = parser.add(answer[start : start + size])
            text += sure
            names += [name for _, name, _ in calls if name is not None]
            for number, _, more in calls:
                arguments[number] += more
        return text, names, arguments

    two = '{"name": "f", "arguments": {}}\n{"name": "g", "arguments": {"a": "}"}}'
    assert split(two) == ("", ["f", "g"], ["{}", '{"a": "}"}'])
    other = two.replace('"f"', '"h"')
    assert split(other) == (other, [], ["", ""])
    assert split("Two\n\nlines {}\n") == ("Two\n\nlines {}\n", [], ["", ""])
