"""The bodies of what the server answers: chat completions, completions, models and tokens.

As the types of dictionaries: mypy holds what is built against them, and `/openapi.json` is made of
them, while nothing is checked at run time.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

from edgesppo.openai_api.answer_types import ChatChoice, ChatLogprobs, CompletionLogprobs, Usage
from edgesppo.server.usage import TimingsBody


class Head(TypedDict):
    """What all answers and their pieces begin with."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(Head):
    """The answers to a conversation."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage
    timings: TimingsBody


class FunctionDelta(TypedDict):
    """What is new of a function's call: first its name, then pieces of its arguments."""

    name: NotRequired[str]
    arguments: str


class ToolCallDelta(TypedDict):
    """What is new of call number `index`."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


class Delta(TypedDict, total=False):
    """What is new of a message."""

    role: Literal["assistant"]
    content: str
    refusal: None
    tool_calls: list[ToolCallDelta]


class ChunkChoice(TypedDict):
    """What is new of one of the answers."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatCompletionChunk(Head):
    """A piece of the answers to a conversation; `usage` comes last, if it was asked for."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: NotRequired[Usage | None]
    timings: NotRequired[TimingsBody]


class TokenBytes(TypedDict):
    """A token's id and its bytes."""

    id: int
    bytes: list[int]


class CompletionChoice(TypedDict):
    """One of the continuations, or what is new of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    tokens: NotRequired[list[TokenBytes]]


class CompletionChunk(Head):
    """A piece of the continuations of a text; `usage` comes last, if it was asked for."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: NotRequired[Usage]
    timings: NotRequired[TimingsBody]


class Completion(Head):
    """The continuations of a text."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage
    timings: TimingsBody


class ModelMeta(TypedDict):
    """The size of a model's context, and its default sampling."""

    n_ctx: int
    sampling: dict[str, Any]


class Model(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    meta: ModelMeta


class Models(TypedDict):
    """The models that are served."""

    object: Literal["list"]
    data: list[Model]


class TokenPiece(TypedDict):
    """A token's id, and its text, or its bytes where they are no text."""

    id: int
    piece: str | list[int]


class Tokens(TypedDict):
    """The tokens of a text: ids, or with `with_pieces` what they stand for, too."""

    tokens: list[int] | list[TokenPiece]


class Text(TypedDict):
    """The text of token ids; with `with_bytes` the bytes of each."""

    content: str
    bytes: NotRequired[list[list[int]]]
