"""A row's messages and tools -> what the model is told, and how it may call the tools."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgesppo.chat.messages import as_message
from edgesppo.errors import UsageError
from edgesppo.openai_api.messages import ApiMessage, ToolCall, turns
from edgesppo.openai_api.tools import Function, Named, ToolUse, tool_use
from edgesppo.system import validate
from edgesppo.system.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgesppo.chat.messages import Message

_MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME_FORM = "1 to 64 letters, digits, _ and -"
_API_KEYS = ("tool_calls", "tool_call_id", "name")  # of messages, beside those of a chat
_FUNCTION_KEYS = ("name", "description", "parameters", "strict")
_TOOL_FORM = '{"type": "function", "function": {"name": ..., "parameters": {...}}}'
_CALL_FORM = '{"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}'


def conversation(given: Any, system: str | None, use: ToolUse | None) -> list[Message]:
    """The turns for a row's messages, which end with the message that is to be answered.

    `system` goes in front. Raises UsageError for messages that are no such conversation.
    """
    if not isinstance(given, list):
        raise validate.invalid_value("messages", given, "a list of messages")
    if not given:
        raise UsageError("messages is empty, expected a user's message at the end")
    first = [] if system is None else [ApiMessage("system", system)]
    messages = [*first, *(_message(n, message) for n, message in enumerate(given, 1))]
    found, partial = turns(messages, "" if use is None else use.system)
    if partial is not None:
        raise UsageError(
            "the last message is an assistant's, expected a user's message at the end, which is "
            "to be answered"
        )
    return found


def _message(n: int, given: Any) -> ApiMessage:
    """Message number `n`: of a chat, or a tool's result, or with calls of tools."""
    if not isinstance(given, dict):
        plain = as_message(n, given)  # which says what is expected
        return ApiMessage(plain.role, plain.content)
    calls, result_of = given.get("tool_calls") or (), given.get("tool_call_id")
    role, content, name = given.get("role"), given.get("content"), given.get("name")
    if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise UsageError(f"message {n}: name is {validate.quoted(name)}, expected {_NAME_FORM}")
    rest = {key: given[key] for key in given if key not in _API_KEYS}
    if role == "tool":
        plain = as_message(n, {**rest, "role": "user"})
        return ApiMessage("tool", plain.content, tool_call_id=_call_id(n, result_of))
    if calls and role == "assistant":
        plain = as_message(n, {**rest, "content": content or ""})
        return ApiMessage("assistant", plain.content, name, _calls(n, calls))
    plain = as_message(n, {key: given[key] for key in given if key != "name"})
    return ApiMessage(plain.role, plain.content, name)


def _call_id(n: int, given: Any) -> str:
    if not isinstance(given, str):
        raise UsageError(
            f"message {n}: tool_call_id is {validate.quoted(given)}, expected the id of a call"
        )
    return given


def _calls(n: int, given: Any) -> list[ToolCall]:
    return [_call(n, call) for call in (given if isinstance(given, list) else [given])]


def _call(n: int, given: Any) -> ToolCall:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict):
        function = given = {}
    texts = given.get("id"), function.get("name"), function.get("arguments", "{}")
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"a call in message {n} has another form, expected {_CALL_FORM}")
    for text in texts:
        validate.text(f"a call in message {n}", text)
    return ToolCall(*map(str, texts))


def row_tools(row: Mapping[str, Any]) -> ToolUse | None:
    """How an answer to a row may use its tools; None without any. Raises UsageError."""
    tools, choice = row.get("tools"), row.get("tool_choice")
    several = row.get("parallel_tool_calls")
    if several is not None and not isinstance(several, bool):
        raise validate.invalid_value("parallel_tool_calls", several, "true or false")
    if tools is None and choice is None:
        return None
    if not isinstance(tools or [], list):
        raise validate.invalid_value("tools", tools, f"a list of {_TOOL_FORM}")
    functions = [_function(n, tool) for n, tool in enumerate(tools or [], 1)]
    return tool_use(functions, _choice(choice), _MAX_TOOLS, several=bool(several))


def _function(n: int, tool: Any) -> Function:
    found = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(found, dict) or tool.get("type") != "function":
        raise UsageError(f"tool {n} is {validate.quoted(tool)}, expected {_TOOL_FORM}")
    for key in found:
        if key not in _FUNCTION_KEYS:
            near = did_you_mean(key, _FUNCTION_KEYS)
            raise UsageError(f"tool {n} has the unknown key {validate.quoted(key)}{near}")
    name, description = found.get("name"), found.get("description")
    parameters = found.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"the name of tool {n} is {validate.quoted(name)}, expected {_NAME_FORM}")
    if description is not None:
        validate.text(f"the description of tool {n}", description)
    if parameters is not None and not isinstance(parameters, dict):
        raise UsageError(
            f"the parameters of tool {n} are {validate.quoted(parameters)}, expected a JSON Schema"
        )
    return Function(name, description, parameters, found.get("strict") is True)


def _choice(choice: object) -> str | Named | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in ("none", "auto", "required"):
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise UsageError(
            f"tool_choice is {validate.quoted(choice)}, expected 'none', 'auto', 'required' or "
            '{"type": "function", "function": {"name": ...}}'
        )
    return Named(name)


def begins_with_system(given: object) -> bool:
    """Whether messages begin with a system text of their own."""
    first = given[0] if isinstance(given, list) and given else None
    return isinstance(first, dict) and first.get("role") == "system"
