"""A client's messages as the model's turns: nothing is dropped, and wrong messages are named."""

from __future__ import annotations

import pytest

from edgesppo.openai_api.errors import BadField
from edgesppo.openai_api.messages import ApiMessage, ToolCall, turns

CALL = ToolCall("call_1", "add", "{}")


def told(*given: ApiMessage, system: str = "") -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in turns(given, system)[0]]


def test_a_system_text_after_the_turns_does_not_replace_the_first_one() -> None:
    given = [ApiMessage("system", "S"), ApiMessage("user", "U"), ApiMessage("system", "P")]
    assert told(*given) == [("system", "S"), ("user", "U\n\nP")]
    assert told(*given, system="tools") == [("system", "S\n\ntools"), ("user", "U\n\nP")]


def test_a_system_text_alone_is_asked() -> None:
    assert told(ApiMessage("system", "S")) == [("user", "S")]
    assert told(ApiMessage("system", "S"), system="tools") == [("system", "tools"), ("user", "S")]


def test_the_id_of_a_call_that_has_its_result_may_come_again() -> None:
    once = [
        ApiMessage("assistant", tool_calls=[CALL]),
        ApiMessage("tool", "3", tool_call_id="call_1"),
    ]
    found = told(ApiMessage("user", "U"), *once, *once)
    assert [role for role, _ in found] == ["user", "assistant"] * 2 + ["user"]
    assert found[2] == found[4] == ("user", "Result of add:\n3")


def test_a_call_without_a_result_is_named() -> None:
    given = [ApiMessage("user", "U"), ApiMessage("assistant", tool_calls=[CALL])]
    with pytest.raises(BadField, match="the call 'call_1' has no result yet"):
        turns(given)
    with pytest.raises(BadField, match="the id 'call_1' of a tool call that has no result"):
        turns([*given, given[1]])
