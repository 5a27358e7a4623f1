"""/api/chat and /api/generate: answers as JSON lines, or as one object."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse

from edgesppo.openai_api import logprobs, tools
from edgesppo.server.answers import Answers
from edgesppo.server.closing_response import ClosingResponse
from edgesppo.server.errors import OllamaErrorBody, bad_request
from edgesppo.server.json_body import JsonRoute
from edgesppo.server.ollama.answer_types import OllamaChatPiece, OllamaGeneratePiece
from edgesppo.server.ollama.requests import ChatBody, GenerateBody, Request
from edgesppo.server.openai.chat import plan_of as chat_plan_of
from edgesppo.server.openai.chat import text_plan_of
from edgesppo.server.openapi import answered, json_lines
from edgesppo.server.service import Plan, Service, finish_reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from edgesppo.chat.result import Result, Timings, TokenLogprob, Usage
    from edgesppo.server.backend import Backend
    from edgesppo.server.errors import ApiError
    from edgesppo.server.settings import Limits

router = APIRouter(route_class=JsonRoute)


class JsonLines(ClosingResponse):
    """A stream of one JSON object a line."""

    media_type = "application/x-ndjson"


@router.post(
    "/api/chat",
    tags=["ollama"],
    responses=answered(OllamaChatPiece, json_lines("OllamaChatPiece"), OllamaErrorBody),
)
async def chat(request: HttpRequest, body: ChatBody) -> Any:
    """Answer a conversation."""
    return await _answer(request, body, OllamaReply(body, chat=True), empty=not body.messages)


@router.post(
    "/api/generate",
    tags=["ollama"],
    responses=answered(OllamaGeneratePiece, json_lines("OllamaGeneratePiece"), OllamaErrorBody),
)
async def generate(request: HttpRequest, body: GenerateBody) -> Any:
    """Answer one text."""
    return await _answer(request, body, OllamaReply(body, chat=False), empty=not body.prompt)


async def _answer(
    request: HttpRequest, body: ChatBody | GenerateBody, reply: OllamaReply, *, empty: bool
) -> Any:
    service: Service = request.app.state.service
    service.require_model(body.model)
    if empty:  # Ollama's way to have the model loaded
        return JSONResponse({**reply.piece("", done=True), "done_reason": "load"})
    limits = service.settings.limits
    answers = await service.start(request, lambda b: plan_of(body, b, limits), "messages")
    if body.streams:
        return JsonLines(answers, reply.lines(answers), _error_line)
    return await answers.whole(lambda results: reply.whole(*results))


def plan_of(body: ChatBody | GenerateBody, backend: Backend, limits: Limits) -> Plan:
    """What is to be computed. Raises ApiError and UsageError."""
    asked = body.as_chat(backend.n_ctx)
    if isinstance(body, GenerateBody) and body.raw:
        if body.system:
            raise bad_request("a raw prompt takes no system text", "system")
        plan = text_plan_of(asked, backend.text_prompt(body.prompt), backend)
    else:
        plan = chat_plan_of(asked, backend, limits)
    most = limits.max_tokens
    if body.is_unlimited or plan.params.max_tokens > most:  # Ollama cuts what is too much
        plan = dataclasses.replace(plan, params=plan.params.replace(max_tokens=most))
    return plan


class OllamaReply:
    """The response to one request, in pieces of the same form."""

    def __init__(self, body: Request, *, chat: bool) -> None:
        self._body = body
        self._chat = chat
        self._started = time.perf_counter_ns()
        given = body.tools or [] if isinstance(body, ChatBody) else []
        names = {tool.function.name for tool in given}
        self._parser = tools.AnswerParser(names) if names else None
        self._calls: list[tuple[str, str]] = []  # names and arguments

    def whole(self, result: Result) -> dict[str, Any]:
        """The answer as one piece."""
        last = self.last(finish_reason(result.finish_reason), result.usage, result.timings)
        return {**self.piece(result.text, result.logprobs, done=True), **last}

    async def lines(self, answers: Answers) -> AsyncIterator[bytes]:
        """The pieces as lines."""
        async for _, chunk in answers.stream():
            last: dict[str, Any] = {}
            if chunk.finish_reason is not None:
                reason = finish_reason(chunk.finish_reason)
                last = self.last(reason, chunk.usage, chunk.timings)
            if chunk.text or last or chunk.logprobs:
                done = bool(last)
                yield _line({**self.piece(chunk.text, chunk.logprobs, done=done), **last})

    def piece(
        self, text: str, entries: Iterable[TokenLogprob] = (), *, done: bool = False
    ) -> dict[str, Any]:
        """A piece of the answer; calls of tools come as a whole, at the end."""
        found: dict[str, Any] = {
            "model": self._body.model,
            "created_at": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
        }
        calls = []
        if self._parser is not None:
            text = self._take_calls(self._parser, text)
            if done:
                text, calls = text + self._parser.rest(), self._whole_calls()
        if self._chat:
            found["message"] = {"role": "assistant", "content": text}
            if calls:
                found["message"]["tool_calls"] = calls
        else:
            found["response"] = text
        found["done"] = done
        if self._body.logprobs:
            found["logprobs"] = logprobs.chat(entries)["content"]
        return found

    def _take_calls(self, parser: tools.AnswerParser, piece: str) -> str:
        """Take in what a piece of the answer has of calls; returns what it has of a text."""
        text, calls = parser.add(piece)
        for _, name, more in calls:
            if name is not None:
                self._calls.append((name, ""))
            name, arguments = self._calls[-1]
            self._calls[-1] = (name, arguments + more)
        return text

    def _whole_calls(self) -> list[dict[str, Any]]:
        """The calls that were not cut off by the limit of tokens."""
        found = []
        for name, text in self._calls:
            with contextlib.suppress(ValueError):
                function = {"name": name, "arguments": json.loads(text)}
                found.append({"function": function})
        return found

    def last(self, reason: str, usage: Usage | None, timings: Timings | None) -> dict[str, Any]:
        """What the last piece tells beside; durations are in nanoseconds."""
        assert usage is not None, "it has ended"
        assert timings is not None, "it has ended"
        computed = usage.prompt_tokens - usage.cached_tokens
        return {
            "done_reason": reason,
            "total_duration": time.perf_counter_ns() - self._started,
            "load_duration": 0,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": _duration(computed, timings.prefill_tps),
            "eval_count": usage.completion_tokens,
            # Of a single token nothing was timed: it came with the last of the prompt.
            "eval_duration": _duration(
                usage.completion_tokens, timings.decode_tps or timings.prefill_tps
            ),
        }


def _duration(n_tokens: int, per_second: float) -> int:
    """Nanoseconds; more than 0 for any token, as clients divide by them."""
    if not n_tokens:
        return 0
    return max(1, round(n_tokens / per_second * 1e9)) if per_second > 0 else 1


def _error_line(error: ApiError) -> bytes:
    return _line(error.body("/api/"))


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
