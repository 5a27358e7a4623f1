"""/v1/chat/completions: from the request to a plan, and from the answers to the response."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from edgesppo._version import __version__
from edgesppo.chat.structured import AnswerFormat, json_answer_format, require_own_end
from edgesppo.errors import UsageError
from edgesppo.openai_api import logprobs, tools
from edgesppo.openai_api.choices import choice, usage_of
from edgesppo.openai_api.messages import turns
from edgesppo.openai_api.tools import Function, Named, ToolUse
from edgesppo.server.answers import Answers
from edgesppo.server.errors import bad_request
from edgesppo.server.json_body import JsonRoute
from edgesppo.server.openai import sse
from edgesppo.server.openai.answer_types import (
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    FunctionDelta,
    Head,
    ToolCallDelta,
)
from edgesppo.server.openai.chat_request import ChatRequest, NamedTool
from edgesppo.server.openapi import answered, events
from edgesppo.server.service import Plan, Service, finish_reason, now
from edgesppo.server.usage import timings_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from edgesppo.chat.result import Chunk, Result
    from edgesppo.openai_api.answer_types import ChatChoice
    from edgesppo.server.backend import Backend
    from edgesppo.server.settings import Limits

router = APIRouter(route_class=JsonRoute)
_RESPONSES = answered(ChatCompletion, events("ChatCompletionChunk", sse.LAST))


@router.post("/v1/chat/completions", tags=["chat"], responses=_RESPONSES)
async def chat_completions(request: Request, body: ChatRequest) -> Any:
    """Answer a conversation."""
    service: Service = request.app.state.service
    service.require_model(body.model)
    limits = service.settings.limits
    answers = await service.start(
        request, lambda backend: plan_of(body, backend, limits), "messages"
    )
    reply = ChatReply(service.backend.name, body)
    if body.stream:
        return sse.EventStream(answers, reply.events(answers))
    return await answers.whole(lambda results: reply.whole(answers, results))


def plan_of(body: ChatRequest, backend: Backend, limits: Limits) -> Plan:
    """What is to be computed. Raises ApiError and UsageError."""
    if len(body.messages) > limits.messages:
        raise bad_request(
            f"there are {len(body.messages)} messages, expected at most {limits.messages}",
            "messages",
        )
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options is given without stream", "stream_options")
    params = backend.params(_sampling(body))
    format_ = _answer_format(body)
    use = _tool_use(body, limits.tools, format_)
    messages, partial = turns(
        [message.plain() for message in body.messages], "" if use is None else use.system
    )
    if (use or format_) and partial is not None:
        raise bad_request("an answer cannot be continued with a schema or tools", "messages")
    if format_ is not None or (use is not None and use.is_required):
        require_own_end(params)
    grammar = use.grammar if use is not None else None if format_ is None else format_.grammar
    prompt = backend.chat_prompt(messages, partial)
    length_field = "max_tokens" if body.max_tokens is not None else "max_completion_tokens"
    return Plan([prompt], params, grammar, body.n or 1, length_field)


def text_plan_of(body: ChatRequest, prompt: list[int], backend: Backend) -> Plan:
    """What is to be computed where `prompt` stands in place of the messages."""
    params, format_ = backend.params(_sampling(body)), _answer_format(body)
    if format_ is not None:
        require_own_end(params)
    return Plan([prompt], params, None if format_ is None else format_.grammar)


def _tool_use(body: ChatRequest, at_most: int, format_: AnswerFormat | None) -> ToolUse | None:
    given = [tool.function for tool in body.tools or ()]
    functions = [
        Function(one.name, one.description, one.parameters, bool(one.strict)) for one in given
    ]
    asked = body.tool_choice
    named = Named(asked.function.name) if isinstance(asked, NamedTool) else asked
    several, answer = bool(body.parallel_tool_calls), None if format_ is None else format_.grammar
    return tools.tool_use(functions, named, at_most, several=several, answer=answer)


def _sampling(body: ChatRequest) -> dict[str, Any]:
    sampling = body.sampling()
    if body.max_completion_tokens is not None:
        if body.max_tokens is not None:
            raise bad_request("max_tokens and max_completion_tokens are both given", "max_tokens")
        sampling["max_tokens"] = body.max_completion_tokens
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs is given without logprobs", "top_logprobs")
    if body.logprobs:
        sampling["logprobs"] = body.top_logprobs or 0
    return sampling


def _answer_format(body: ChatRequest) -> AnswerFormat | None:
    """The format that the answer has to have; None for plain text."""
    asked = body.response_format
    if asked is None:
        return None
    if asked.type == "text":
        if asked.json_schema is not None or asked.schema_ is not None:
            raise bad_request(
                "response_format has a schema, but its type is 'text', expected 'json_schema'",
                "response_format",
            )
        return None
    given: Any = asked.schema_
    if asked.json_schema is not None:
        given = asked.json_schema.schema_
    if given is None and asked.type == "json_schema":
        raise bad_request("response_format has no json_schema", "response_format")
    try:
        return json_answer_format({"type": "object"} if given is None else given)
    except UsageError as error:
        raise bad_request(str(error), "response_format", "invalid_schema") from None


class ChatReply:
    """The response to one request, as a whole or as events."""

    def __init__(self, model: str, body: ChatRequest) -> None:
        self._body = body
        used = [] if body.tool_choice == "none" else body.tools or []
        self._tools = {tool.function.name for tool in used}
        self._head: Head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": now(),
            "model": model,
            "system_fingerprint": f"edgesppo-{__version__}",
        }

    def whole(self, answers: Answers, results: list[Result]) -> ChatCompletion:
        """The response as one object."""
        choices = [self._choice(n, result) for n, result in enumerate(results)]
        usage = usage_of([result.usage for result in results], answers.n)
        timings = timings_of(answers.jobs[0], results[0].timings)
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": usage,
            "timings": timings,
        }

    def _choice(self, n: int, result: Result) -> ChatChoice:
        finish_reason(result.finish_reason)
        return choice(n, result, tools=self._tools, with_logprobs=bool(self._body.logprobs))

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """The response as events."""
        n_choices = len(answers.jobs)
        parsers = [tools.AnswerParser(self._tools) for _ in range(n_choices)]
        for n in range(n_choices):
            yield self._event(n, {"role": "assistant", "content": "", "refusal": None})
        ends: dict[int, Chunk] = {}
        async for n, chunk in answers.stream():
            for delta in self._deltas(parsers[n], chunk.text):
                yield self._event(n, delta, chunk)
                chunk = _without_logprobs(chunk)
            if self._body.logprobs and chunk.logprobs:
                yield self._event(n, {"content": ""}, chunk)
            if chunk.finish_reason is not None:
                ends[n] = chunk
                if self._tools and (rest := parsers[n].rest()):
                    yield self._event(n, {"content": rest})
                reason = finish_reason(chunk.finish_reason)
                if self._tools and parsers[n].is_whole_call and reason == "stop":
                    reason = "tool_calls"
                yield self._event(n, {}, reason=reason, **self._last(answers, ends, n_choices))
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            yield self._usage_event(answers, ends)
        yield sse.DONE

    def _deltas(self, parser: tools.AnswerParser, text: str) -> list[Delta]:
        """What a piece of text adds to the message."""
        if not self._tools:
            return [{"content": text}] if text else []
        sure, calls = parser.add(text)
        deltas: list[Delta] = [{"content": sure}] if sure else []
        for index, name, arguments in calls:
            new: ToolCallDelta = {"index": index, "function": {"arguments": arguments}}
            if name is not None:
                function: FunctionDelta = {"name": name, "arguments": ""}
                new |= {"id": tools.call_id(), "type": "function", "function": function}
            deltas.append({"tool_calls": [new]})
        return deltas

    def _event(
        self,
        n: int,
        delta: Delta,
        chunk: Chunk | None = None,
        reason: str | None = None,
        **more: Any,
    ) -> bytes:
        found = None
        if self._body.logprobs and chunk is not None and chunk.logprobs:
            found = logprobs.chat(chunk.logprobs)
        choice: ChunkChoice = {
            "index": n,
            "delta": delta,
            "logprobs": found,
            "finish_reason": reason,
        }
        return sse.event({**self._chunk([choice]), **more})

    def _chunk(self, choices: list[ChunkChoice]) -> ChatCompletionChunk:
        head, kind = self._head, "chat.completion.chunk"  # mypy: a Head might have more keys
        chunk: ChatCompletionChunk = {**head, "object": kind, "choices": choices}  # type: ignore[typeddict-item]
        options = self._body.stream_options
        if options is not None and options.include_usage:
            chunk["usage"] = None
        return chunk

    def _last(self, answers: Answers, ends: Mapping[int, Chunk], n_choices: int) -> dict[str, Any]:
        """What the very last choice's end tells beside it."""
        if len(ends) < n_choices:
            return {}
        return {"timings": timings_of(answers.jobs[0], ends[0].timings)}

    def _usage_event(self, answers: Answers, ends: Mapping[int, Chunk]) -> bytes:
        found = [ends[n].usage for n in sorted(ends)]
        usage = usage_of([usage for usage in found if usage is not None], answers.n)
        return sse.event({**self._chunk([]), "usage": usage})


def _without_logprobs(chunk: Chunk) -> Chunk:
    return replace(chunk, logprobs=()) if chunk.logprobs else chunk
