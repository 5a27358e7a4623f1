"""`Message`, and the list of a chat's messages. Wherever a message goes in, it may be a dict.

{"role": "user", "content": "What is the capital of France?"}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeAlias, get_args

from edgesppo.chat.choices import Role
from edgesppo.errors import UsageError
from edgesppo.system import validate
from edgesppo.system.suggest import did_you_mean

ROLES: tuple[str, ...] = get_args(Role)
_KEYS = ("role", "content")
_TEXT_TYPES = ("text", "input_text", "output_text")
# What to do about keys and roles of other chat formats.
_KEY_ADVICE = {
    "name": "Gemma-2's turns have no names: write it into the content",
    "tool_calls": "Gemma-2 calls no tools: leave it out, or write it into the content as text",
    "tool_call_id": "Gemma-2 calls no tools: give the result as a user's message",
    "function_call": "Gemma-2 calls no functions: leave it out, or write it into the content",
    "refusal": "write the refusal into the content",
    "reasoning_content": "Gemma-2 does not reason apart: leave it out",
    "images": "Gemma-2 reads text only: leave it out",
    "audio": "Gemma-2 reads text only: leave it out",
}
_ROLE_ADVICE = {
    "developer": "use 'system'",
    "model": "use 'assistant'",
    "bot": "use 'assistant'",
    "human": "use 'user'",
    "tool": "Gemma-2 calls no tools: give the result as a user's message",
    "function": "Gemma-2 calls no functions: give the result as a user's message",
}
_SHOWN = 60  # characters of a text in a repr
_ADVICE = "pass all of them to model.ask(), or leave it out and give its text to chat.ask()"


@dataclass(frozen=True, repr=False, eq=False)
class Message(dict[str, str]):
    """One message of a chat; also a dict of its role and content, as JSON has them.

    It equals such a dict, and cannot be changed.

    Attributes:
        role: "system", "user" or "assistant".
        content: The text.
        ids: The token ids that an answer was generated as. They are fed back instead of the text,
            which keeps the context as the model saw it, and so the KV cache valid.
        finish_reason: How an answer ended: "stop", "length" or "cancelled"; None if unknown.
    """

    role: Role
    content: str
    ids: tuple[int, ...] | None = None
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        super().__init__(role=self.role, content=self.content)

    def to_dict(self) -> dict[str, str]:
        """The role and the content, as JSON has them: {"role": "user", "content": "Hi"}."""
        return {**self}

    def _all(self) -> tuple[Any, ...]:
        return self.role, self.content, self.ids, self.finish_reason

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Message):
            return self._all() == other._all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        return Message, self._all()

    def __repr__(self) -> str:
        return f"Message({self.role!r}, {shortened(self.content)})"

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("a Message cannot be changed; put another one in its place")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


# A Message, or a dict with its role and content.
MessageLike: TypeAlias = Mapping[str, object]


class MessageList(list[Message]):
    """The messages of a chat. Dicts that are put into it become Messages.

    Raises UsageError for what is no message.
    """

    def __init__(self, messages: Iterable[MessageLike] = ()) -> None:
        super().__init__(as_messages(messages))

    def append(self, message: MessageLike, /) -> None:
        """Add a message at the end."""
        super().append(as_message(len(self) + 1, message))

    def insert(self, index: SupportsIndex, message: MessageLike, /) -> None:
        """Put a message before the one at `index`."""
        super().insert(index, as_message(index.__index__() + 1, message))

    def extend(self, messages: Iterable[MessageLike], /) -> None:
        """Add messages at the end."""
        super().extend(as_messages(messages, len(self) + 1))

    def __iadd__(self, messages: Iterable[MessageLike], /) -> MessageList:  # type: ignore[override,misc]
        self.extend(messages)
        return self

    def __setitem__(self, key: Any, value: Any, /) -> None:
        if isinstance(key, slice):
            super().__setitem__(key, as_messages(value, key.indices(len(self))[0] + 1))
        else:
            super().__setitem__(key, as_message(key.__index__() + 1, value))


def as_messages(given: Any, start: int = 1) -> list[Message]:
    """Messages from Messages or dicts; `start` is the first one's number in errors."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise UsageError(
            f"the messages have the type {type(given).__name__}, expected a list of them: "
            '[{"role": "user", "content": "..."}, ...]'
        )
    return [as_message(n, message) for n, message in enumerate(given, start)]


def as_message(n: int, given: Any) -> Message:
    """Message number `n` from a Message or a dict. Raises UsageError if it is neither."""
    if isinstance(given, Message):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(
            f"message {n} is {validate.quoted(given)}, expected a Message or a dict with the keys "
            "'role' and 'content'"
        )
    for key, value in given.items():
        if key not in _KEYS and not _means_nothing(value):
            advice = _KEY_ADVICE.get(key) if isinstance(key, str) else None
            raise UsageError(
                f"message {n} has the key {validate.quoted(key)}{did_you_mean(str(key), _KEYS)}, "
                f"expected 'role' and 'content' only{f'; {advice}' if advice else ''}"
            )
    for key in _KEYS:
        if key not in given:
            raise UsageError(f"message {n} has no {key!r}, expected 'role' and 'content'")
    role, content = given["role"], given["content"]
    if not isinstance(role, str) or role not in ROLES:
        expected = " or ".join(map(repr, ROLES))
        advice = _ROLE_ADVICE.get(role) if isinstance(role, str) else None
        raise UsageError(
            f"message {n} has the role {validate.quoted(role)}, expected {expected}"
            f"{f'; {advice}' if advice else ''}"
        )
    if isinstance(content, list | tuple):
        content = joined_text(_part(n, part) for part in content)
    validate.text(f"the content of message {n}", content)
    return Message(role, content)  # type: ignore[arg-type]


def joined_text(parts: Iterable[str]) -> str:
    """The text of a content that is given in parts: as with OpenAI, nothing comes between them."""
    return "".join(parts)


def _means_nothing(value: object) -> bool:
    """Whether a further key says nothing, as in the messages that other programs write."""
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)


def _part(n: int, part: object) -> str:
    """The text of one part of a message's content."""
    what = f"the content of message {n}"
    if not isinstance(part, Mapping):
        raise UsageError(
            f'{what} has the part {validate.quoted(part)}, expected {{"type": "text", "text": ...}}'
        )
    if part.get("type", "text") not in _TEXT_TYPES:
        raise UsageError(
            f"{what} has a part of the type {validate.quoted(part['type'])}, expected 'text':"
            " Gemma-2 reads nothing else; leave the part out"
        )
    validate.text(f"the text in {what}", part.get("text"))
    return str(part["text"])


def split_system(given: Any, system: str | None = None) -> tuple[str | None, list[Message]]:
    """The system text, and the messages after it, of messages that a system message may begin.

    Users' and assistants' messages must alternate, beginning with a user's. Raises UsageError if
    they do not, and for a system message beside `system`.
    """
    messages = as_messages(given)
    start = 1
    if messages and messages[0].role == "system":
        if system is not None:
            raise UsageError(
                "there are two system texts, system= and message 1; give it once, in either place"
            )
        system, start = messages.pop(0).content, 2
        validate.text("the content of message 1", system)
    for n, message in enumerate(messages, start):
        expected = "assistant" if (n - start) % 2 else "user"
        if message.role != expected:
            raise UsageError(f"message {n} has the role {message.role!r}, expected {expected!r}")
        validate.text(f"the content of message {n}", message.content)
    return system, messages


def complete_turns(given: Any, system: str | None) -> tuple[str | None, list[Message]]:
    """As `split_system`, for messages that end with an answer. Raises UsageError for others."""
    system, messages = split_system(given, system)
    if len(messages) % 2:
        raise UsageError(f"the last message is a user's, which has no answer yet: {_ADVICE}")
    return system, messages


def question_last(given: Any, system: str | None) -> tuple[str | None, list[Message], str]:
    """The system text, the turns, and the question with which the messages end.

    Raises UsageError for messages that do not end with a user's.
    """
    system, messages = split_system(given, system)
    if not len(messages) % 2:
        found = "the last message is an assistant's" if messages else "there is no question"
        raise UsageError(f"{found}, expected a user's message at the end, which is to be answered")
    return system, messages[:-1], messages[-1].content


def shortened(text: object) -> str:
    """The repr of a text, cut to what suits a line."""
    if isinstance(text, str) and len(text) > _SHOWN:
        return f"{text[:_SHOWN]!r}..."
    return validate.quoted(text)
