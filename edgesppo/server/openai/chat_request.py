"""The body of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from edgesppo.chat.messages import joined_text
from edgesppo.openai_api import messages
from edgesppo.openai_api.messages import ApiMessage, ApiRole
from edgesppo.server.errors import unsupported
from edgesppo.server.openai.fields import (
    FIRST_ERROR,
    Notes,
    Sampling,
    StreamOptions,
    Strict,
    example,
)

_PARTS = {
    "image_url": "images are",
    "input_image": "images are",
    "image": "images are",
    "input_audio": "audio is",
    "audio": "audio is",
    "file": "files are",
    "input_file": "files are",
    "video_url": "video is",
}


def text_parts(content: Any) -> Any:
    """Refuse by name what is no text. A refusal, which another model wrote, is one."""
    return [*map(_text_part, content)] if isinstance(content, list) else content


def _text_part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in _PARTS:
        raise unsupported(_PARTS[kind], "content")
    if kind == "refusal" and "refusal" in part:
        return {"type": "text", "text": part["refusal"]}
    return part


class TextPart(Strict):
    """A piece of a message's text."""

    type: Literal["text", "input_text", "output_text"]
    text: str


Texts = Annotated[list[TextPart], FIRST_ERROR]
Content = Annotated[str | Texts | None, BeforeValidator(text_parts)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def text_of(content: str | list[TextPart] | None) -> str:
    """The text of a message's content."""
    if isinstance(content, list):
        return joined_text(part.text for part in content)
    return content or ""


class FunctionCall(Strict):
    """Which function is called, with its arguments as JSON text."""

    name: Name
    arguments: str = "{}"
    parsed_arguments: Any = None  # OpenAI's client has it beside them


class ToolCall(Strict):
    """A call that the model made."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None  # in a stream


class ChatMessage(Strict):
    """One message. Those of a tool are given to the model as a user's, as it knows no others."""

    role: ApiRole
    content: Content = None
    name: Name | None = None  # who speaks; goes in front of the text
    # Of an assistant's message that is given again, what was said beside its text.
    refusal: None = None
    parsed: Any = None
    reasoning_content: str | None = None  # another model's; not told again
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[ToolCall], FIRST_ERROR] | None = None
    tool_call_id: str | None = None

    def plain(self) -> ApiMessage:
        """The message as it is put into the model's turns."""
        calls = [
            messages.ToolCall(call.id, call.function.name, call.function.arguments)
            for call in self.tool_calls or ()
        ]
        text = None if self.content is None else text_of(self.content)
        return ApiMessage(self.role, text, self.name, calls, self.tool_call_id)


class Function(Strict):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool; there are only functions."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    """The name of a function."""

    name: str


class NamedTool(Strict):
    """The one tool that is to be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


def known_tool(tool: Any) -> Any:
    """Refuse by name a tool that is no function."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if isinstance(kind, str) and kind != "function":
        raise unsupported(f"a tool of the type {kind[:64]!r} is", "tools")
    return tool


KnownTool = Annotated[Tool, BeforeValidator(known_tool)]


def known_choice(choice: Any) -> Any:
    """Refuse by name the choice of something that is no function."""
    if isinstance(choice, dict) and choice.get("type", "function") != "function":
        raise unsupported(
            f"a tool_choice of the type {str(choice['type'])[:64]!r} is", "tool_choice"
        )
    return choice


Choice = Annotated[Literal["none", "auto", "required"] | NamedTool, BeforeValidator(known_choice)]


class SchemaFormat(Strict):
    """A JSON Schema with a name."""

    name: str = "answer"
    description: str | None = None
    schema_: Annotated[dict[str, Any] | bool, Field(alias="schema")] = True
    strict: bool | None = None


class ResponseFormat(Strict):
    """What the answer has to be: text, a JSON object, or what a schema says.

    The schema is given as OpenAI has it, in `json_schema`, or beside the type, as llama-server has
    it.
    """

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None
    schema_: Annotated[dict[str, Any] | bool | None, Field(alias="schema")] = None


class ChatRequest(Notes, Sampling):
    """A conversation whose next message is asked for."""

    model_config = example(messages=[{"role": "user", "content": "Why is the sky blue?"}])
    REFUSED: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {
        **Notes.REFUSED,
        "audio": ("audio output is", ()),
        "modalities": ("other output than text is", (["text"],)),
        "store": ("storing responses is", (False,)),
        "functions": ("'functions' (tools in its place) is", ([],)),
        "function_call": (
            "'function_call' (tool_choice in its place) is",
            ("none", "auto"),  # without functions there is nothing to call
        ),
        "prediction": ("predicted output is", ()),
        "web_search_options": ("searching the web is", ()),
        "reasoning_effort": ("reasoning effort is", ("none",)),
        "verbosity": ("verbosity is", ("medium",)),
        "service_tier": ("another service tier is", ("auto", "default")),
        "moderation": ("moderation is", ()),
    }

    model: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1), FIRST_ERROR]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[KnownTool], FIRST_ERROR] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
