"""A client's messages as Gemma-2's turns: a system text, then user and assistant in turn.

Nothing is dropped. System and developer messages after the first turn go in front of the next
user's message; messages of one role in a row are joined with an empty line between; the results of
tools become a user's turn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from edgesppo.chat.messages import Message
from edgesppo.openai_api.errors import BadField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.choices import Role

_BREAK = "\n\n"


ApiRole: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A call that the model made; `arguments` is JSON as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ApiMessage:
    """A message as a client sends it. A tool's is given to the model as a user's."""

    role: ApiRole
    content: str | None = None
    name: str | None = None  # who speaks; goes in front of the text
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None


def turns(given: Sequence[ApiMessage], system: str = "") -> tuple[list[Message], str | None]:
    """The messages for the template, and the beginning of an answer that is to be continued.

    `system` is put behind the client's own system text. Raises BadField for messages that make no
    conversation.
    """
    conversation = _Conversation()
    for n, message in enumerate(given):
        conversation.add(n, message)
    return conversation.finish(system)


def call_text(name: str, arguments: str) -> str:
    """A call of a tool as the model writes it."""
    return f'{{"name": {json.dumps(name)}, "arguments": {arguments}}}'


class _Conversation:
    def __init__(self) -> None:
        self._system: list[str] = []
        self._pending: list[str] = []  # system texts for the next user's turn
        self._turns: list[tuple[Role, str]] = []
        self._open: dict[str, str] = {}  # calls without a result: id -> name of the tool

    def add(self, n: int, message: ApiMessage) -> None:
        """Add the client's message number `n`."""
        where, text = f"messages.{n}", message.content or ""
        if message.name is not None and message.role != "tool":
            text = f"{message.name}: {text}"
        if message.content is None and not message.tool_calls:
            raise BadField(f"{where}.content is null, expected a text", f"{where}.content")
        if message.tool_calls and message.role != "assistant":
            raise BadField(f"{where} is no assistant's, but has tool_calls", where)
        if message.role in ("system", "developer"):
            (self._pending if self._turns else self._system).append(text)
        elif message.role == "tool":
            self._add_user(self._result(where, message, text))
        elif message.role == "user":
            self._add_user(text)
        else:
            self._add_assistant(where, text, message.tool_calls)

    def finish(self, system: str) -> tuple[list[Message], str | None]:
        """The turns, and the answer to continue."""
        if self._open:
            raise BadField(
                f"the call {next(iter(self._open))[:64]!r} has no result yet, expected a message "
                "of the role 'tool' with that tool_call_id",
                "messages",
            )
        if not self._turns:  # a system text alone is asked as a user's
            self._add_user(_BREAK.join(self._system))
            self._system = []
        elif self._pending:
            self._add_user("")
        partial = self._turns.pop()[1] if self._turns[-1][0] == "assistant" else None
        head = _BREAK.join(text for text in (*self._system, system) if text.strip())
        first = [Message("system", head)] if head else []
        return [*first, *(Message(role, text) for role, text in self._turns)], partial

    def _add_user(self, text: str) -> None:
        texts = [*self._pending, text]
        self._pending = []
        self._add("user", _BREAK.join(filter(None, texts)))

    def _add_assistant(self, where: str, text: str, calls: Sequence[ToolCall]) -> None:
        if not self._turns:
            raise BadField(f"{where} is an assistant's, expected a user's first", where)
        if self._pending:
            self._add_user("")
        for call in calls:
            if call.id in self._open:
                raise BadField(
                    f"{where} has the id {call.id[:64]!r} of a tool call that has no result yet",
                    where,
                )
            self._open[call.id] = call.name
        made = [call_text(call.name, call.arguments) for call in calls]
        self._add("assistant", "\n".join(filter(None, [text, *made])))

    def _result(self, where: str, message: ApiMessage, text: str) -> str:
        """The text by which the model gets to know a tool's result."""
        call = message.tool_call_id
        if call is None or call not in self._open:
            raise BadField(
                f"{where}.tool_call_id is {call!r}, expected the id of a call without a result",
                f"{where}.tool_call_id",
            )
        return f"Result of {self._open.pop(call)}:\n{text}"

    def _add(self, role: Role, text: str) -> None:
        if self._turns and self._turns[-1][0] == role:
            text = _BREAK.join(filter(None, (self._turns.pop()[1], text)))
        self._turns.append((role, text))
