"""OpenAI's batch form of a row: its request body, and the body of the answer.

{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}
{"id": "batch_req_...", "custom_id": "a", "response": {"status_code": 200, ...}, "error": null}
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.openai_api.choices import choice, usage_of
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from edgesppo.chat.result import Result

URL = "/v1/chat/completions"
ROW_KEYS = ("custom_id", "method", "url", "body")
# Keys of a body that change no answer here.
_IGNORED = (
    *("model", "user", "metadata", "store", "service_tier", "stream_options", "stream"),
    *("safety_identifier", "prompt_cache_key"),
)
_REPLACED = {"functions": "tools", "function_call": "tool_choice"}
BODY_KEYS = (
    *("messages", "n", "seed", "response_format", "logprobs", "top_logprobs"),
    *("max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls"),
    *(*_IGNORED, *_REPLACED),
)


def check_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a row. Raises UsageError for another method or address, and without a body."""
    method, url = row.get("method"), row.get("url")
    if method not in (None, "POST"):
        raise UsageError(f"method is {validate.quoted(method)}, expected 'POST'")
    if url not in (None, URL):
        raise UsageError(f"url is {validate.quoted(url)}, expected {URL!r}")
    body = row.get("body")
    if not isinstance(body, dict):
        raise UsageError(f"body is {validate.quoted(body)}, expected an object with messages")
    return {key: value for key, value in body.items() if value is not None}


def options(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body's settings under our names. Raises UsageError for what is not supported."""
    found = {key: value for key, value in body.items() if key not in _IGNORED}
    for key, newer in _REPLACED.items():
        if found.pop(key, None) not in (None, [], "none"):
            raise UsageError(f"{key!r} is not supported; use {newer}")
    if body.get("stream"):
        raise UsageError("stream is true, but a row is answered as a whole; leave it out")
    if "max_completion_tokens" in found:
        found["max_tokens"] = found.pop("max_completion_tokens")
    if "response_format" in found:
        found["schema"] = _schema(found.pop("response_format"))
    if "logprobs" in found or "top_logprobs" in found:
        found["logprobs"] = _logprobs(found.get("logprobs"), found.pop("top_logprobs", None))
    if "messages" in found:
        found["messages"] = _messages(found["messages"])
    return {key: value for key, value in found.items() if value is not None}


def _schema(asked: Any) -> Any:
    kind = asked.get("type") if isinstance(asked, dict) else asked
    if kind == "text":
        return None
    if kind == "json_object":
        return "json_object"
    inner = asked.get("json_schema") if isinstance(asked, dict) else None
    if kind != "json_schema" or not isinstance(inner, dict) or "schema" not in inner:
        raise UsageError(
            f"response_format is {validate.quoted(asked)}, expected the type 'text', 'json_object' "
            "or 'json_schema' with json_schema.schema"
        )
    return inner["schema"]


def _logprobs(wanted: Any, top: Any) -> int | None:
    """Our number of alternatives for logprobs=true and top_logprobs; None if they are off."""
    if wanted is not None:
        validate.boolean("logprobs", wanted)
    if not wanted:
        if top:
            raise UsageError("top_logprobs needs logprobs=true beside it")
        return None
    return 0 if top is None else validate.integer("top_logprobs", top, 0, 20)


def _messages(given: Any) -> Any:
    """The messages with 'system' in place of 'developer'."""
    if not isinstance(given, list):
        return given
    return [
        {**one, "role": "system"}
        if isinstance(one, dict) and one.get("role") == "developer"
        else one
        for one in given
    ]


def completion(
    id_: str, model: str, results: Sequence[Result], *, tools: Collection[str]
) -> dict[str, Any]:
    """The body of an answer: a chat completion with a choice for each result."""
    return {
        "id": f"chatcmpl-{id_}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                **choice(n, one, tools=tools, with_logprobs=bool(one.logprobs)),
                "seed": one.seed,
            }
            for n, one in enumerate(results)
        ],
        "usage": usage_of([one.usage for one in results], len(results)),
    }


def failure(message: str, code: str, status: int) -> dict[str, Any]:
    """The response of a row that was refused, as the API answers such a request."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return {"status_code": status, "request_id": "", "body": {"error": error}}
