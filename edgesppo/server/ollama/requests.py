"""The bodies of Ollama's requests, and the chat requests that they come to."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from edgesppo.sampling.options import NAMES
from edgesppo.server.errors import bad_request, unsupported
from edgesppo.server.openai.chat_request import (
    ChatMessage,
    ChatRequest,
    FunctionCall,
    KnownTool,
    Name,
    ResponseFormat,
    SchemaFormat,
    Tool,
    ToolCall,
)
from edgesppo.server.openai.fields import FIRST_ERROR, Count, RequestModel, Sampling, Strict

# What Ollama means by these numbers of tokens is: as many as there is room for.
_UNLIMITED = (-1, -2)
_WHOLE_CONTEXT = -1  # of repeat_last_n


class Options(Sampling):
    """The sampling parameters; most are called as everywhere else.

    How to compute is the server's own choice, which changes no answer: those options are checked,
    and have no effect. Nor has `num_keep`, as nothing is ever dropped from a chat, nor `num_ctx`:
    the context is as large as the server has it.
    """

    REFUSED: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {
        "tfs_z": ("tail-free sampling (tfs_z) is", (1, 1.0)),
        "penalize_newline": ("the option penalize_newline is", (True,)),
        "max_tokens": ("the option max_tokens (it is num_predict here) is", ()),
        "vocab_only": ("loading the vocabulary only is", (False,)),
        "embedding_only": ("embedding is", (False,)),
    }

    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=2**31 - 1)] | None = None
    num_ctx: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    num_thread: Count | None = None
    num_batch: Count | None = None
    num_gpu: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    main_gpu: Count | None = None
    num_keep: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    low_vram: bool | None = None
    numa: bool | None = None
    f16_kv: bool | None = None
    logits_all: bool | None = None


def _no_images(images: Any) -> Any:
    if images:
        raise unsupported("images are", "images")
    return images


class Call(Strict):
    """A call of a function, with its arguments as an object."""

    name: Name
    arguments: Annotated[dict[str, Any], Field(default_factory=dict)]
    index: int | None = None


class CallOf(Strict):
    """A call that the model made."""

    function: Call
    id: str | None = None
    type: Literal["function"] | None = None


class Message(Strict):
    """One message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: Annotated[
        Annotated[list[Any], Field(max_length=0)] | None, BeforeValidator(_no_images)
    ] = None
    tool_calls: Annotated[list[CallOf], FIRST_ERROR] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    thinking: str | None = None  # of another model; not told again


class Request(RequestModel):
    """What both requests have in common."""

    REFUSED: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {
        "think": ("thinking is", (False,)),
        "template": ("another template is", ("",)),
        "suffix": ("inserting before a suffix is", ("",)),
        "context": ("going on from token ids (context; /api/chat takes the messages) is", ([],)),
        "images": ("images are", ([],)),
        # What does not fit is refused, whatever these say: apps send them without being asked.
        "truncate": ("a truncate that is no boolean is", (False, True)),
        "shift": ("a shift that is no boolean is", (False, True)),
    }

    model: str
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: Options | None = None
    keep_alive: str | float | None = None  # the model stays loaded in any case
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer is streamed; it is if nothing is said."""
        return self.stream is not False

    @property
    def is_unlimited(self) -> bool:
        """Whether the answer may be as long as the server allows."""
        return self.options is not None and self.options.num_predict in _UNLIMITED

    def sampling(self, n_ctx: int) -> dict[str, Any]:
        """The options by the names of SamplingParams."""
        found = {} if self.options is None else self.options.sampling()
        if found.get("repeat_last_n") == _WHOLE_CONTEXT:
            found["repeat_last_n"] = n_ctx
        asked = None if self.options is None else self.options.num_predict
        if asked == 0:
            raise bad_request("num_predict is 0, expected at least 1, or -1", "num_predict")
        if asked is not None and not self.is_unlimited:
            found["max_tokens"] = asked
        return found

    def chat(
        self, n_ctx: int, messages: list[ChatMessage], tools: list[Tool] | None = None
    ) -> ChatRequest:
        """The same request to OpenAI's chat API."""
        sampling = self.sampling(n_ctx)
        assert sampling.keys() <= set(NAMES), "they are called alike"
        return ChatRequest.model_construct(
            **sampling,
            messages=messages,
            tools=tools,
            parallel_tool_calls=True,  # its clients take a list
            response_format=self._format(),
            logprobs=self.logprobs,
            top_logprobs=self.top_logprobs,
        )

    def _format(self) -> ResponseFormat | None:
        if not self.format:
            return None
        if self.format == "json":
            return ResponseFormat(type="json_object")
        schema = SchemaFormat.model_construct(schema_=self.format)
        return ResponseFormat(type="json_schema", json_schema=schema)


class ChatBody(Request):
    """The body of /api/chat."""

    messages: Annotated[list[Message], Field(default_factory=list), FIRST_ERROR]
    tools: Annotated[list[KnownTool], FIRST_ERROR] | None = None

    def as_chat(self, n_ctx: int) -> ChatRequest:
        """The same request to OpenAI's chat API. Raises an ApiError."""
        open_calls: list[tuple[str, str]] = []  # id and name, in the order of the calls
        made = 0
        found: list[ChatMessage] = []
        for n, message in enumerate(self.messages):
            if message.role != "tool":
                found += _without_result(open_calls)
            calls = []
            for call in message.tool_calls or []:
                made += 1
                id_ = call.id or f"call_{made}"
                open_calls.append((id_, call.function.name))
                arguments = json.dumps(call.function.arguments)
                function = FunctionCall(name=call.function.name, arguments=arguments)
                calls.append(ToolCall(id=id_, function=function))
            result_of = None
            if message.role == "tool":
                result_of = _answered(n, message, open_calls)
            found.append(
                ChatMessage(
                    role=message.role,
                    content=message.content,
                    tool_calls=calls or None,
                    tool_call_id=result_of,
                )
            )
        return self.chat(n_ctx, [*found, *_without_result(open_calls)], self.tools)


class GenerateBody(Request):
    """The body of /api/generate."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None

    def as_chat(self, n_ctx: int) -> ChatRequest:
        """The same request to OpenAI's chat API."""
        system = [] if not self.system else [ChatMessage(role="system", content=self.system)]
        return self.chat(n_ctx, [*system, ChatMessage(role="user", content=self.prompt)])


class ModelBody(RequestModel):
    """The body of a request about a model."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None
    stream: bool | None = None


def _answered(n: int, message: Message, open_calls: list[tuple[str, str]]) -> str:
    """The id of the call whose result message `n` is: the first open one that it may mean."""
    for place, (id_, name) in enumerate(open_calls):
        if message.tool_call_id in (None, id_) and message.tool_name in (None, name):
            del open_calls[place]
            return id_
    field = "tool_name" if message.tool_call_id is None else "tool_call_id"
    raise bad_request(
        f"messages.{n}.{field} is {getattr(message, field)!r}, expected that of a call before it "
        "that has no result yet",
        f"messages.{n}.{field}",
    )


def _without_result(open_calls: list[tuple[str, str]]) -> list[ChatMessage]:
    """Messages in place of the results of calls that have none, as of a stopped agent."""
    calls = [*open_calls]
    open_calls.clear()
    return [ChatMessage(role="tool", content="no result", tool_call_id=id_) for id_, _ in calls]
