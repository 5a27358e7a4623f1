"""The parts of a chat completion: what builds them is checked against these, and clients are told.

They are plain dictionaries at run time, so that to describe an answer costs nothing.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict


class AnswerFunction(TypedDict):
    """Which function is called, with its arguments as JSON text."""

    name: str
    arguments: str


class AnswerToolCall(TypedDict):
    """A call that the model made."""

    id: str
    type: Literal["function"]
    function: AnswerFunction


class AnswerMessage(TypedDict):
    """The answer: a text, or calls of tools."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[AnswerToolCall]]


class TokenLogprob(TypedDict):
    """A token, with the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int]


class PositionLogprob(TokenLogprob):
    """A token of the answer, and the most probable ones in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(TypedDict):
    """The log-probabilities of a chat's answer."""

    content: list[PositionLogprob]
    refusal: None


class CompletionLogprobs(TypedDict):
    """The log-probabilities of a continued text, as lists of the same length."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class ChatChoice(TypedDict):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class PromptDetails(TypedDict):
    """How much of the prompt was in the KV cache."""

    cached_tokens: int


class Usage(TypedDict):
    """The tokens of a request's answers; a prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
