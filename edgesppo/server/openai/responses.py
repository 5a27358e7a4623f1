"""/v1/responses: the newer API of OpenAI, over the same conversations."""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from edgesppo.server.json_body import JsonRoute
from edgesppo.server.openai import sse
from edgesppo.server.openai.chat import plan_of
from edgesppo.server.openai.response_items import Item, Items
from edgesppo.server.openai.response_types import OutputText, Response, ResponseUsage, Status
from edgesppo.server.openai.responses_request import ResponsesRequest
from edgesppo.server.openapi import answered, events
from edgesppo.server.service import Plan, Service, finish_reason, now
from edgesppo.server.usage import timings_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from edgesppo.chat.result import Chunk, Result, Usage
    from edgesppo.server.answers import Answers
    from edgesppo.server.backend import Backend
    from edgesppo.server.errors import ApiError

router = APIRouter(route_class=JsonRoute)
_RESPONSES = answered(Response, events("ResponseEvent"))


@router.post("/v1/responses", tags=["responses"], responses=_RESPONSES)
async def responses(request: Request, body: ResponsesRequest) -> Any:
    """Answer a text or a conversation; nothing is stored."""
    service: Service = request.app.state.service
    service.require_model(body.model)
    limits = service.settings.limits

    def plan(backend: Backend) -> Plan:
        found = plan_of(body.as_chat(), backend, limits)
        return dataclasses.replace(found, length_field="max_output_tokens")

    answers = await service.start(request, plan, "input")
    reply = ResponseReply(service.backend.name, body)
    if body.stream:
        return sse.EventStream(answers, reply.events(answers), reply.error_event)
    return await answers.whole(lambda results: reply.whole(answers, results[0]))


class ResponseReply:
    """The response to one request, as a whole or as events."""

    def __init__(self, model: str, body: ResponsesRequest) -> None:
        self._body = body
        self._model = model
        self._id = f"resp_{secrets.token_hex(12)}"
        self._created = now()
        self._n_events = 0
        used = [] if body.tool_choice == "none" else body.tools or []
        self.items = Items({tool.name for tool in used})

    def whole(self, answers: Answers, result: Result) -> Response:
        """The response, all at once."""
        self.items.add(result.text)
        self.items.end()
        return self._ended(answers, result)

    def _ended(self, answers: Answers, last: Result | Chunk) -> Response:
        """The response, once all of its output is there."""
        response = self.response(finish_reason(last.finish_reason or ""), last.usage)
        response["timings"] = timings_of(answers.jobs[0], last.timings)
        return response

    def response(self, reason: str | None = None, usage: Usage | None = None) -> Response:
        """The response, with its output once there is a reason why that has ended."""
        known: dict[str | None, Status] = {None: "in_progress", "stop": "completed"}
        status = known.get(reason, "incomplete")
        body = self._body.model_dump(exclude_none=True, by_alias=True)
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": (
                {"reason": "max_output_tokens"} if status == "incomplete" else None
            ),
            "model": self._model,
            "output": [] if reason is None else self.items.json(status),
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": body.get("metadata"),
            "temperature": body.get("temperature"),
            "top_p": body.get("top_p"),
            "user": body.get("user"),
            "parallel_tool_calls": bool(self._body.parallel_tool_calls),
            "previous_response_id": None,
            "store": False,
            "text": body.get("text", {"format": {"type": "text"}}),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "truncation": "disabled",
            "usage": None if usage is None else _usage(usage),
        }

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """The response as events."""
        yield self._event("response.created", response=self.response())
        yield self._event("response.in_progress", response=self.response())
        open_: Item | None = None
        async for _, chunk in answers.stream():
            gains = self.items.add(chunk.text)
            if chunk.finish_reason is not None:
                gains += self.items.end()
            for item, text in gains:
                if item is not open_:
                    for event in [*self._end(open_, "completed"), *self._begin(item)]:
                        yield event
                    open_ = item
                if text:
                    yield self._delta(item, text)
            if chunk.finish_reason is not None:
                response = self._ended(answers, chunk)
                for event in self._end(open_, response["status"]):
                    yield event
                yield self._event(f"response.{response['status']}", response=response)

    def error_event(self, error: ApiError) -> bytes:
        """A failure, as the protocol has it; OpenAI's clients raise it for what is in `error`."""
        told = error.body()["error"]
        flat = {name: told[name] for name in ("code", "message", "param")}
        return self._event("error", **flat, error=told)

    def _begin(self, item: Item) -> list[bytes]:
        found = item.json("in_progress", empty=True)
        added = "response.output_item.added"
        events = [self._event(added, output_index=item.index, item=found)]
        if not item.is_call:
            part: OutputText = {**item.part(), "text": ""}
            events.append(self._of_text(item, "response.content_part.added", part=part))
        return events

    def _delta(self, item: Item, text: str) -> bytes:
        if item.is_call:
            return self._of_item(item, "response.function_call_arguments.delta", delta=text)
        return self._of_text(item, "response.output_text.delta", delta=text, logprobs=[])

    def _end(self, item: Item | None, status: Status) -> list[bytes]:
        """The events that end an item; none if there is none."""
        if item is None:
            return []
        done, events = item.json(status), []
        if item.is_call:
            name = "response.function_call_arguments.done"
            events.append(self._of_item(item, name, arguments=item.text, name=item.name))
        else:
            of_text = "response.output_text.done"
            events.append(self._of_text(item, of_text, text=item.text, logprobs=[]))
            events.append(self._of_text(item, "response.content_part.done", part=item.part()))
        events.append(self._event("response.output_item.done", output_index=item.index, item=done))
        return events

    def _of_text(self, item: Item, kind: str, **more: Any) -> bytes:
        return self._of_item(item, kind, content_index=0, **more)

    def _of_item(self, item: Item, kind: str, **more: Any) -> bytes:
        return self._event(kind, item_id=item.id, output_index=item.index, **more)

    def _event(self, kind: str, **more: Any) -> bytes:
        self._n_events += 1
        return sse.event({"type": kind, "sequence_number": self._n_events - 1, **more}, kind)


def _usage(usage: Usage) -> ResponseUsage:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
