"""/v1/completions: a text, or token ids, to be continued as they are, without a chat's template."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from pydantic import Field

from edgesppo._version import __version__
from edgesppo.openai_api import logprobs
from edgesppo.openai_api.choices import usage_of
from edgesppo.server.answers import Answers
from edgesppo.server.errors import bad_request
from edgesppo.server.json_body import JsonRoute
from edgesppo.server.openai import sse
from edgesppo.server.openai.answer_types import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    Head,
)
from edgesppo.server.openai.fields import FIRST_ERROR, Notes, Sampling, StreamOptions, example
from edgesppo.server.openapi import answered, events
from edgesppo.server.service import Plan, Service, finish_reason, now
from edgesppo.server.usage import timings_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from edgesppo.chat.result import Chunk, Result
    from edgesppo.openai_api.answer_types import CompletionLogprobs
    from edgesppo.server.backend import Backend

router = APIRouter(route_class=JsonRoute)
_RESPONSES = answered(Completion, events("CompletionChunk", sse.LAST))
_DEFAULT_TOKENS = 16  # of the API, if max_tokens is not given
_PROMPTS = Field(min_length=1, max_length=64)

Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), FIRST_ERROR]


class CompletionRequest(Notes, Sampling):
    """One or more prompts, as texts or token ids."""

    model_config = example(prompt="The sky is blue because", max_tokens=20)
    REFUSED: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {
        **Notes.REFUSED,
        "suffix": ("inserting before a suffix is", ("",)),
    }

    model: str | None = None
    prompt: (
        str
        | Ids
        | Annotated[list[str], _PROMPTS, FIRST_ERROR]
        | Annotated[list[Ids], _PROMPTS, FIRST_ERROR]
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    echo: bool | None = None
    return_tokens: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


@router.post("/v1/completions", tags=["completions"], responses=_RESPONSES)
async def completions(request: Request, body: CompletionRequest) -> Any:
    """Continue a text."""
    service: Service = request.app.state.service
    service.require_model(body.model)
    answers = await service.start(request, lambda backend: plan_of(body, backend), "prompt")
    reply = CompletionReply(service.backend, body)
    if body.stream:
        return sse.EventStream(answers, reply.events(answers))
    return await answers.whole(lambda results: reply.whole(answers, results))


def plan_of(body: CompletionRequest, backend: Backend) -> Plan:
    """What is to be computed. Raises ApiError and UsageError."""
    n = body.n or 1
    if body.best_of not in (None, n):
        raise bad_request(f"best_of is {body.best_of}, expected n: all are returned", "best_of")
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options is given without stream", "stream_options")
    if body.echo and body.logprobs is not None:
        raise bad_request("echo and logprobs cannot be used together", "echo")
    default = min(_DEFAULT_TOKENS, backend.defaults()["max_tokens"])
    sampling = {"max_tokens": default, **body.sampling()}
    if body.logprobs is not None:
        sampling["logprobs"] = body.logprobs
    prompts = [_ids(prompt, backend) for prompt in _prompts(body)]
    return Plan(prompts, backend.params(sampling), n=n)


def _prompts(body: CompletionRequest) -> list[str | list[int]]:
    """The prompts, each a text or token ids."""
    given: Any = body.prompt
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        return [given]
    return list(given)


def _ids(prompt: str | list[int], backend: Backend) -> list[int]:
    if isinstance(prompt, str):
        return backend.text_prompt(prompt)
    backend.detokenize(prompt)  # raises for an id outside of the vocabulary
    return backend.require_room(prompt)


class CompletionReply:
    """The response to one request, as a whole or as events."""

    def __init__(self, backend: Backend, body: CompletionRequest) -> None:
        self._body = body
        self._backend = backend
        self._head: Head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "created": now(),
            "model": backend.name,
            "system_fingerprint": f"edgesppo-{__version__}",
        }

    def whole(self, answers: Answers, results: list[Result]) -> Completion:
        """The response as one object."""
        choices = []
        for n, result in enumerate(results):
            echo = self._echo(n // answers.n)
            found = None
            if self._body.logprobs is not None:
                found = logprobs.completion(result.logprobs, logprobs.TextOffsets())
            reason = finish_reason(result.finish_reason)
            choices.append(self._choice(n, echo + result.text, found, reason, answers.jobs[n].ids))
        return {
            **self._head,
            "object": "text_completion",
            "choices": choices,
            "usage": usage_of([result.usage for result in results], answers.n),
            "timings": timings_of(answers.jobs[0], results[0].timings),
        }

    async def events(self, answers: Answers) -> AsyncGenerator[bytes, None]:
        """The response as events."""
        n_jobs = len(answers.jobs)
        offsets = [logprobs.TextOffsets() for _ in range(n_jobs)]
        ends: dict[int, Chunk] = {}
        if self._body.echo:
            for n in range(n_jobs):
                yield self._event(n, self._echo(n // answers.n))
        async for n, chunk in answers.stream():
            reason = None
            if chunk.finish_reason is not None:
                ends[n], reason = chunk, finish_reason(chunk.finish_reason)
            found = None
            if chunk.logprobs:
                found = logprobs.completion(chunk.logprobs, offsets[n])
            if chunk.text or found or reason or (chunk.ids and self._body.return_tokens):
                yield self._event(n, chunk.text, found, reason, chunk.ids)
        options = self._body.stream_options
        if options is not None and options.include_usage:
            found_usage = [ends[n].usage for n in sorted(ends)]
            usage = usage_of([usage for usage in found_usage if usage is not None], answers.n)
            timings = timings_of(answers.jobs[0], ends[0].timings)
            yield sse.event({**self._chunk([]), "usage": usage, "timings": timings})
        yield sse.DONE

    def _echo(self, number: int) -> str:
        """The prompt's text, if the answer is to begin with it."""
        if not self._body.echo:
            return ""
        prompt = _prompts(self._body)[number]
        return prompt if isinstance(prompt, str) else self._backend.detokenize(prompt)

    def _event(
        self,
        n: int,
        text: str,
        found: CompletionLogprobs | None = None,
        reason: str | None = None,
        ids: Sequence[int] = (),
    ) -> bytes:
        return sse.event(self._chunk([self._choice(n, text, found, reason, ids)]))

    def _chunk(self, choices: list[CompletionChoice]) -> CompletionChunk:
        head, kind = self._head, "text_completion"  # mypy: a Head might have more keys
        return {**head, "object": kind, "choices": choices}  # type: ignore[typeddict-item]

    def _choice(
        self,
        n: int,
        text: str,
        found: CompletionLogprobs | None,
        reason: str | None,
        ids: Sequence[int],
    ) -> CompletionChoice:
        choice: CompletionChoice = {
            "text": text,
            "index": n,
            "logprobs": found,
            "finish_reason": reason,
        }
        if self._body.return_tokens:
            choice["tokens"] = [{"id": id_, "bytes": [*self._backend.text(id_)]} for id_ in ids]
        return choice
