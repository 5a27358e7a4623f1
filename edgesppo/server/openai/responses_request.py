"""The body of /v1/responses, and the chat request that it comes to. Nothing is stored."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from edgesppo.server.errors import bad_request, unsupported
from edgesppo.server.openai.chat_request import (
    ChatMessage,
    ChatRequest,
    Function,
    FunctionCall,
    Name,
    NamedFunction,
    NamedTool,
    ResponseFormat,
    SchemaFormat,
    TextPart,
    Tool,
    ToolCall,
    known_choice,
    known_tool,
    text_parts,
)
from edgesppo.server.openai.fields import (
    FIRST_ERROR,
    Notes,
    Sampling,
    StreamOptions,
    Strict,
    example,
)


class Part(TextPart):
    """A piece of text; what an earlier response said beside it is not needed again."""

    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Content = Annotated[str | Annotated[list[Part], FIRST_ERROR], BeforeValidator(text_parts)]


class MessageItem(Strict):
    """A message, also one that an earlier response had."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class CallItem(Strict):
    """A call of a function that an earlier response made."""

    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1, max_length=256)]
    name: Name
    arguments: str
    id: str | None = None
    status: str | None = None


class CallOutputItem(Strict):
    """The result of such a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: str | None = None


_ITEMS: dict[str, type[Strict]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": CallOutputItem,
}


def _known_item(item: Any) -> Any:
    """A message's type may be left out; other kinds are refused by name.

    Clients give back the items of a response with all keys that they know, most of them null.
    """
    if not isinstance(item, dict):
        return item
    kind = item.get("type", "message")
    if not isinstance(kind, str) or kind not in _ITEMS:
        shown = kind[:64] if isinstance(kind, str) else type(kind).__name__
        raise unsupported(f"an input item of the type {shown!r} is", "input")
    known = _ITEMS[kind].model_fields
    told = {name: value for name, value in item.items() if value is not None or name in known}
    return {**told, "type": kind}


Item = Annotated[
    Annotated[MessageItem | CallItem | CallOutputItem, Field(discriminator="type")],
    BeforeValidator(_known_item),
]


class TextFormat(Strict):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    description: str | None = None
    schema_: Annotated[dict[str, Any] | bool | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextConfig(Strict):
    """How the text is to be."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class FunctionTool(Function):
    """A function that the model may call."""

    type: Literal["function"]


KnownTool = Annotated[FunctionTool, BeforeValidator(known_tool)]


class FunctionChoice(Strict):
    """The one function that is to be called."""

    type: Literal["function"]
    name: str


Choice = Annotated[
    Literal["none", "auto", "required"] | FunctionChoice, BeforeValidator(known_choice)
]


class ResponsesRequest(Notes, Sampling):
    """A text or a conversation that is to be answered; earlier turns are given again."""

    model_config = example(input="Why is the sky blue?")
    REFUSED: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {
        **Notes.REFUSED,
        "previous_response_id": ("storing responses, so previous_response_id, is", ()),
        "conversation": ("storing conversations is", ()),
        "store": ("storing responses is", (False,)),
        "background": ("answering in the background is", (False,)),
        "prompt": ("a stored prompt is", ()),
        "include": ("including more is", ([],)),
        "reasoning": ("reasoning is", ({}, {"effort": "none"})),
        "max_tool_calls": ("built-in tools are not here: max_tool_calls is", ()),
        "truncation": ("dropping turns to fit is", ("disabled",)),
        "service_tier": ("another service tier is", ("auto", "default")),
        "moderation": ("moderation is", ()),
        "max_tokens": ("max_tokens (it is max_output_tokens here) is", ()),
        "stop": ("stop is", ()),
    }

    model: str | None = None
    input: str | Annotated[list[Item], Field(min_length=1), FIRST_ERROR]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    text: TextConfig | None = None
    tools: Annotated[list[KnownTool], FIRST_ERROR] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def as_chat(self) -> ChatRequest:
        """The same request to the chat API."""
        choice = self.tool_choice
        if isinstance(choice, FunctionChoice):
            choice = NamedTool(function=NamedFunction(name=choice.name))  # type: ignore[assignment]
        return ChatRequest.model_construct(
            **self.sampling(),
            messages=self._messages(),
            max_completion_tokens=self.max_output_tokens,
            response_format=self._format(),
            tools=[_tool(tool) for tool in self.tools or []],
            tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls,
            stream=self.stream,
        )

    def _format(self) -> ResponseFormat | None:
        asked = None if self.text is None else self.text.format
        if asked is None:
            return None
        if asked.type == "json_schema" and asked.schema_ is None:
            raise bad_request("text.format has no schema", "text.format")
        named = SchemaFormat.model_construct(schema_=asked.schema_)
        return ResponseFormat(type=asked.type, json_schema=None if asked.schema_ is None else named)

    def _messages(self) -> list[ChatMessage]:
        found: list[ChatMessage] = []
        if self.instructions is not None:
            found.append(ChatMessage(role="system", content=self.instructions))
        if isinstance(self.input, str):
            return [*found, ChatMessage(role="user", content=self.input)]
        for item in self.input:
            if isinstance(item, MessageItem):
                found.append(ChatMessage(role=item.role, content=_plain(item.content)))
            elif isinstance(item, CallOutputItem):
                text = _plain(item.output)
                found.append(ChatMessage(role="tool", content=text, tool_call_id=item.call_id))
            else:
                made = FunctionCall(name=item.name, arguments=item.arguments)
                call = ToolCall(id=item.call_id, function=made)
                found.append(ChatMessage(role="assistant", tool_calls=[call]))
        return found


def _tool(tool: FunctionTool) -> Tool:
    function = Function(**tool.model_dump(exclude={"type"}))
    return Tool(type="function", function=function)


def _plain(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
