"""Owns messages -> token ids, segment by segment. Knows nothing of sampling.

    <bos> <start_of_turn>user\\nTEXT<end_of_turn>\\n <start_of_turn>model\\nTEXT<end_of_turn>\\n ...
    ... <start_of_turn>model\\n

The scaffold's control tokens are put in as ids; role names and texts are tokenised as plain text.
So nothing a person, a file or a model writes can become a control token, and there is exactly
one `<bos>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgesppo.errors import UsageError
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROLES = {"user": "user", "assistant": "model"}


@dataclass(frozen=True)
class Message:
    """One message: its role ("system", "user" or "assistant") and its text.

    `ids` are the tokens an answer was generated as: feeding them back instead of its text keeps
    the context as the model saw it, and so the KV cache valid. `finish_reason` says how an answer
    ended, as far as that is known: "stop", "length" or "cancelled".
    """

    role: str
    content: str
    ids: tuple[int, ...] | None = None
    finish_reason: str | None = None


class Tokenizer(Protocol):
    """What is needed of a model here."""

    bos: int
    start_of_turn: int
    end_of_turn: int

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text, without any control token."""

    def fewest_tokens(self, text: str) -> int:
        """How many tokens a text has at least, told without tokenising it."""


def encode(model: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat, ready for the model's answer.

    An optional system message comes first; Gemma-2 has no such role, so its text goes in front of
    the first user message, with an empty line between. Then user and assistant take turns, and a
    user has the last word. Raises UsageError, saying which message, when they do not.
    """
    turns = _turns(messages)
    ids = [model.bos]
    for turn in turns:
        ids += _turn(model, turn)
    return [*ids, model.start_of_turn, *model.tokenize("model\n")]


def count(model: Tokenizer, messages: Sequence[Message]) -> int:
    """How many tokens these messages take in a chat's prompt, each by itself."""
    return sum(len(_turn(model, _trimmed(message, n))) for n, message in enumerate(messages, 1))


def fewest(model: Tokenizer, messages: Sequence[Message]) -> int:
    """How many tokens these messages take at least; quickly, as no text is tokenised."""
    texts = (_trimmed(message, n).content for n, message in enumerate(messages, 1))
    return sum(model.fewest_tokens(text) for text in texts)


def _turn(model: Tokenizer, turn: Message) -> list[int]:
    newline = model.tokenize("\n")
    return [model.start_of_turn, *_body(model, turn), model.end_of_turn, *newline]


def _trimmed(message: Message, n: int) -> Message:
    return Message(message.role, _text(message, n), message.ids)


def _body(model: Tokenizer, turn: Message) -> list[int]:
    head = _ROLES.get(turn.role, turn.role) + "\n"
    if turn.ids is not None:
        return model.tokenize(head) + list(turn.ids)
    return model.tokenize(head + turn.content)


def _turns(messages: Sequence[Message]) -> list[Message]:
    """The messages with their text trimmed and the system text merged into the first turn."""
    system = ""
    turns: list[Message] = []
    for n, message in enumerate(messages, 1):
        text = _text(message, n)
        if message.role == "system" and n == 1:
            system = text
            continue
        expected = "assistant" if len(turns) % 2 else "user"
        if message.role != expected:
            raise UsageError(f"message {n} has the role {message.role!r}, expected {expected!r}")
        if system and not turns:
            text = f"{system}\n\n{text}"
        turns.append(Message(message.role, text, message.ids))
    if len(turns) % 2 == 0:
        last = turns[-1].role if turns else "none"
        raise UsageError(f"the last message has the role {last!r}, expected 'user'")
    return turns


def _text(message: Message, n: int) -> str:
    validate.text(f"the content of message {n}", message.content)
    return message.content.strip()
