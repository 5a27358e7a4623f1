"""Gemma-2's chat template: messages -> token ids.

    <bos> <start_of_turn>user\\nTEXT<end_of_turn>\\n <start_of_turn>model\\nTEXT<end_of_turn>\\n ...
    ... <start_of_turn>model\\n

The template's control tokens are inserted as ids; role names and texts are tokenised as plain
text. So nothing that a person, a file or a model writes can become a control token, and there is
exactly one `<bos>`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edgesppo.chat.messages import Message
from edgesppo.errors import UsageError
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ROLES = {"user": "user", "assistant": "model"}


class ChatTokenizer(Protocol):
    """The tokenizer and the special tokens that the template needs; `Model` has them all."""

    bos: int
    start_of_turn: int
    end_of_turn: int
    newline: list[int]  # the ids of "\n"
    answer_head: list[int]  # the ids of "model\n"

    def tokenize(self, text: str) -> list[int]:
        """The token ids of plain text, never a control token's."""

    def fewest_tokens(self, text: str) -> int:
        """A lower bound for the text's number of tokens, found without tokenising it."""


# (message's number, message, system text to put in front of it or "") -> the message's ids.
Encoder = Callable[[int, Message, str], list[int]]


def encode(
    model: ChatTokenizer, messages: Sequence[Message], *, answering: bool = True
) -> list[int]:
    """The token ids of a chat, ready for the model's answer.

    A system message may come first; Gemma-2 has no such role, so its text is put in front of the
    first user message, with an empty line between. Then user and assistant alternate, and the last
    message is a user's. Raises UsageError, with the message's number, if they do not. Where
    `answering` is off the messages may also end with an answer.
    """

    def checked_ids(n: int, message: Message, system: str) -> list[int]:
        check(n, message)
        return message_ids(model, message, system)

    if not messages or messages[0].role != "system":
        return assemble(model, messages, checked_ids, answering=answering)
    check(1, messages[0])
    system = messages[0].content.strip()
    return assemble(model, messages[1:], checked_ids, system=system, start=2, answering=answering)


def assemble(
    model: ChatTokenizer,
    messages: Sequence[Message],
    ids_of: Encoder,
    *,
    system: str = "",
    start: int = 1,
    answering: bool = True,
) -> list[int]:
    """The prompt of messages whose ids `ids_of` returns; `start` is the first one's number.

    It ends with the beginning of an answer; where `answering` is off, only after a question.
    """
    ids = [model.bos]
    expected = last = "none"
    for n, message in enumerate(messages, start):
        last, expected = message.role, "assistant" if expected == "user" else "user"
        if last != expected:
            raise UsageError(f"message {n} has the role {last!r}, expected {expected!r}")
        ids += ids_of(n, message, system)
        system = ""
    if last != "user" and not answering:
        return ids
    if last != "user":
        raise UsageError(f"the last message has the role {last!r}, expected 'user'")
    ids.append(model.start_of_turn)
    ids += model.answer_head
    return ids


def fewest_tokens(model: ChatTokenizer, texts: Iterable[str]) -> int:
    """A lower bound for the tokens of texts in a prompt, found without tokenising them.

    A prompt for which it is more than fits is not worth building. The template strips each text.
    """
    return sum(model.fewest_tokens(text.strip()) for text in texts)


def check(n: int, message: Message) -> None:
    """Raise UsageError unless the content of message number `n` is valid text."""
    validate.text(f"the content of message {n}", message.content)


def message_ids(model: ChatTokenizer, message: Message, system: str) -> list[int]:
    """The ids of one message between its turn's control tokens, after the system text if any."""
    if message.ids is None:
        text = message.content.strip()
        text = f"{system}\n\n{text}" if system else text
        body = model.tokenize(f"{_ROLES.get(message.role, message.role)}\n{text}")
    elif message.role == "assistant":
        body = [*model.answer_head, *message.ids]
    else:
        body = [*model.tokenize(f"{message.role}\n"), *message.ids]
    return [model.start_of_turn, *body, model.end_of_turn, *model.newline]
