"""/v1/responses: the newer API of OpenAI, over the same conversations."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from edgesppo.openai_api import tools
from edgesppo.server.json_body import JsonRoute
from edgesppo.server.openai import sse
from edgesppo.server.openai.chat import plan_of
from edgesppo.server.openai.responses_request import ResponsesRequest
from edgesppo.server.service import Service, finish_reason, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgesppo.chat.result import Usage
    from edgesppo.server.service import Answers

router = APIRouter(route_class=JsonRoute, responses=sse.DOCUMENTED)


@router.post("/v1/responses", tags=["responses"])
async def responses(request: Request, body: ResponsesRequest) -> Any:
    """Answer a text or a conversation; nothing is stored."""
    service: Service = request.app.state.service
    service.require_model(body.model)
    limits = service.settings.limits
    answers = await service.start(
        request, lambda backend: plan_of(body.as_chat(), backend, limits), "input"
    )
    reply = Reply(service.backend.name, body)
    if body.stream:
        return sse.AnswerStream(answers, reply.events(answers))
    (result,) = await answers.results()
    reply.item.add(result.text)
    reply.item.end()
    return JSONResponse(reply.response(finish_reason(result.finish_reason), result.usage))


class Item:
    """The one item of the output: a message or a call, as far as it is known."""

    def __init__(self, *, may_call: bool) -> None:
        self._may_call = may_call
        self._parser = tools.CallParser()
        self._id = secrets.token_hex(12)
        self._call_id = tools.call_id()
        self.text = ""
        self.arguments = ""

    def add(self, piece: str) -> str:
        """Add a piece of the answer; returns what is certain of the text or the arguments."""
        if not self._may_call:
            self.text += piece
            return piece
        sure = self._parser.text(piece)
        if self._parser.is_call:
            sure = self._parser.arguments()
            self.arguments += sure
        else:
            self.text += sure
        return sure

    def end(self) -> str:
        """Take it as whole; returns what has become certain of the text."""
        rest = self._parser.rest()
        self.text += rest
        return rest

    @property
    def is_call(self) -> bool:
        """Whether it is a call of a function."""
        return self._parser.name is not None

    @property
    def is_known(self) -> bool:
        """Whether it is certain what it is."""
        if not self._may_call:
            return True
        return self._parser.is_call is False or self._parser.name is not None

    @property
    def id(self) -> str:
        """Its id."""
        return f"{'fc' if self.is_call else 'msg'}_{self._id}"

    def part(self) -> dict[str, Any]:
        """The text as the content of a message."""
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def json(self, status: str, *, empty: bool = False) -> dict[str, Any]:
        """The item as the API writes it; `empty` is how a stream announces it."""
        if self.is_call:
            return {
                "type": "function_call",
                "id": self.id,
                "call_id": self._call_id,
                "name": self._parser.name or "",
                "arguments": "" if empty else self.arguments,
                "status": status,
            }
        return {
            "type": "message",
            "id": self.id,
            "role": "assistant",
            "status": status,
            "content": [] if empty else [self.part()],
        }


class Reply:
    """The response to one request, as a whole or as events."""

    def __init__(self, model: str, body: ResponsesRequest) -> None:
        self._body = body
        self._model = model
        self._id = f"resp_{secrets.token_hex(12)}"
        self._created = now()
        self._n_events = 0
        self.item = Item(may_call=bool(body.tools) and body.tool_choice != "none")

    def response(self, reason: str | None = None, usage: Usage | None = None) -> dict[str, Any]:
        """The response, with its output once there is a reason why that has ended."""
        status = {None: "in_progress", "stop": "completed"}.get(reason, "incomplete")
        body = self._body.model_dump(exclude_none=True, by_alias=True)
        same = ("instructions", "max_output_tokens", "metadata", "temperature", "top_p", "user")
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
            "output": [] if reason is None else [self.item.json(status)],
            **{name: body.get(name) for name in same},
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "text": body.get("text", {"format": {"type": "text"}}),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "truncation": "disabled",
            "usage": None if usage is None else _usage(usage),
        }

    async def events(self, answers: Answers) -> AsyncIterator[bytes]:
        """The response as events."""
        yield self._event("response.created", response=self.response())
        yield self._event("response.in_progress", response=self.response())
        announced = False
        async for _, chunk in answers.stream():
            sure = self.item.add(chunk.text)
            reason = chunk.finish_reason
            if reason is not None:
                sure += self.item.end()
            if not announced and (self.item.is_known or reason is not None):
                announced = True
                for event in self._begin():
                    yield event
            if sure:
                yield self._delta(sure)
            if reason is not None:
                for event in self._end(finish_reason(reason), chunk.usage):
                    yield event

    def _begin(self) -> list[bytes]:
        item = self.item.json("in_progress", empty=True)
        events = [self._event("response.output_item.added", output_index=0, item=item)]
        if not self.item.is_call:
            part = {**self.item.part(), "text": ""}
            events.append(self._of_text("response.content_part.added", part=part))
        return events

    def _delta(self, text: str) -> bytes:
        if self.item.is_call:
            return self._of_item("response.function_call_arguments.delta", delta=text)
        return self._of_text("response.output_text.delta", delta=text, logprobs=[])

    def _end(self, reason: str, usage: Usage | None) -> list[bytes]:
        item, events = self.item, []
        response = self.response(reason, usage)
        done = item.json(response["status"])
        if item.is_call:
            name = "response.function_call_arguments.done"
            events.append(self._of_item(name, arguments=item.arguments, name=done["name"]))
        else:
            events.append(self._of_text("response.output_text.done", text=item.text, logprobs=[]))
            events.append(self._of_text("response.content_part.done", part=item.part()))
        events.append(self._event("response.output_item.done", output_index=0, item=done))
        events.append(self._event(f"response.{response['status']}", response=response))
        return events

    def _of_text(self, kind: str, **more: Any) -> bytes:
        return self._of_item(kind, content_index=0, **more)

    def _of_item(self, kind: str, **more: Any) -> bytes:
        return self._event(kind, item_id=self.item.id, output_index=0, **more)

    def _event(self, kind: str, **more: Any) -> bytes:
        self._n_events += 1
        return sse.event({"type": kind, "sequence_number": self._n_events - 1, **more}, kind)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
