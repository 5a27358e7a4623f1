"""Answers -> the choices and the usage of a chat completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.openai_api import logprobs
from edgesppo.openai_api.tools import AnswerParser, are_whole, call_id

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from edgesppo.chat.result import Result, Usage
    from edgesppo.openai_api import answer_types
    from edgesppo.openai_api.answer_types import AnswerMessage, AnswerToolCall, ChatChoice


def choice(n: int, result: Result, *, tools: Collection[str], with_logprobs: bool) -> ChatChoice:
    """Choice number `n`: a text, or calls of tools, whose names are given."""
    calls = calls_in(result.text, tools) if tools else []
    message: AnswerMessage = {"role": "assistant", "content": result.text, "refusal": None}
    if calls:
        message = {**message, "content": None, "tool_calls": calls}
    return {
        "index": n,
        "message": message,
        "logprobs": logprobs.chat(result.logprobs) if with_logprobs else None,
        "finish_reason": finish_reason(result, calls),
    }


def calls_in(text: str, tools: Collection[str]) -> list[AnswerToolCall]:
    """The calls of a whole answer; none if it is text. The last one's arguments may be cut off."""
    found: list[AnswerToolCall] = []
    for _, name, arguments in AnswerParser(tools).add(text)[1]:
        if name is not None:
            found.append(tool_call(call_id(), name, ""))
        found[-1]["function"]["arguments"] += arguments
    return found


def finish_reason(result: Result, calls: Sequence[AnswerToolCall]) -> str:
    """Why an answer ended: calls that are whole have a reason of their own."""
    is_whole = bool(calls) and are_whole(calls[-1]["function"]["arguments"])
    if is_whole and result.finish_reason == "stop":
        return "tool_calls"
    return result.finish_reason


def tool_call(id_: str, name: str, arguments: str) -> AnswerToolCall:
    """A call as a message has it."""
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def usage_of(usages: Sequence[Usage], n: int) -> answer_types.Usage:
    """The counts of a request's answers, `n` to each prompt, which counts once."""
    prompt = sum(one.prompt_tokens for one in usages[::n])
    completion = sum(one.completion_tokens for one in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in usages[::n])},
    }
