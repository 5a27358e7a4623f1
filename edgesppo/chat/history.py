"""What was said in a chat, and the token ids of each message, which are made once.

A message never changes, but the list of them may be edited by anyone. So the ids belong to the
message and not to its place: what stands in the list newly is checked and tokenised when a prompt
is made of it, and the rest is only joined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.chat import template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.template import ChatTokenizer, Message

# A trimmed prompt may take this part of the room: it is small so that a long chat pays for a new
# prefill seldom, not at every turn.
_TRIMMED_SHARE = 2
# In the place of a message's number.
_CHECKED = 0


class History:
    """The messages of a chat, its system text, and how many of its oldest turns are left out.

    A turn is two messages: a user's, and the answer to it.
    """

    def __init__(
        self,
        model: ChatTokenizer,
        messages: Sequence[Message] = (),
        *,
        system: str | None = None,
        left_out: int = 0,
    ) -> None:
        self.messages = list(messages)
        self.system = system
        self.left_out = left_out  # turns
        self._model = model
        # By the message's id(), which is no other's while the message is held here.
        self._known: dict[int, tuple[Message, list[int]]] = {}
        self._first: tuple[Message, str, list[int]] | None = None  # a message and a system text

    def encode(self, more: Sequence[Message] = (), *, left_out: int = 0) -> list[int]:
        """The ids of the history, but for its oldest turns, and of `more` messages.

        They are those that `template.encode` gives. Raises UsageError for a message out of turn.
        """
        ids = self._joined(left_out, len(self.messages), more)
        self._remember_only(self.messages[2 * left_out :])
        return ids

    def fit(
        self, asked: Message, after: int, room: int, *, trims: bool = True
    ) -> tuple[list[int], int]:
        """The prompt that asks behind the first `after` messages, and how many turns it leaves out.

        It takes at most `room` tokens, where that can be had by leaving out the oldest turns; with
        `trims` off none go but those that are left out already. That `asked` is a text was checked
        by whoever brought it.
        """
        turns = after // 2
        left_out = min(self.left_out, turns)
        new = self._ids(_CHECKED, asked, self._system_text() if after <= 2 * left_out else "")
        if trims and left_out < turns:
            left_out = self._trimmed(after, room, len(new), left_out)
        ids = self._joined(left_out, after, [asked])
        while trims and len(ids) > room and left_out < turns:
            left_out += 1  # joined to the system text, a turn can take a token more
            ids = self._joined(left_out, after, [asked])
        self._remember_only([*self.messages[2 * left_out : after], asked])
        return ids, left_out

    def _trimmed(self, after: int, room: int, n_asked: int, left_out: int) -> int:
        """How many turns are to be left out, where `left_out` of them are already."""
        room_then = room // _TRIMMED_SHARE
        taken = n_asked + 2 + len(self._model.answer_head)  # <bos> and <start_of_turn>
        if self._too_many(after, room - taken, left_out) == left_out:
            return left_out
        at, system = 2 * left_out, self._system_text()
        # Another turn will have the system text.
        taken += len(self._ids_at(at, system)) - len(self._ids_at(at, ""))
        return self._too_many(after, room_then - taken, left_out)

    def _too_many(self, after: int, room: int, left_out: int) -> int:
        """How many of the oldest turns must go for the rest to take at most `room` tokens.

        Counted from the newest, so that a history of any length takes no more time than `room`.
        """
        for n in range(after // 2, left_out, -1):
            system = self._system_text() if n == left_out + 1 else ""
            room -= len(self._ids_at(2 * n - 2, system)) + len(self._ids_at(2 * n - 1, ""))
            if room < 0:
                return n
        return left_out

    def _joined(self, left_out: int, after: int, more: Sequence[Message]) -> list[int]:
        start = 2 * left_out
        return template.assemble(
            self._model,
            [*self.messages[start:after], *more],
            self._ids,
            system=self._system_text(),
            start=self._number(start),
        )

    def _number(self, index: int) -> int:
        """A message's number in errors; the system text is the first."""
        return index + (2 if self.system else 1)

    def _ids_at(self, index: int, system: str) -> list[int]:
        return self._ids(self._number(index), self.messages[index], system)

    def _ids(self, n: int, message: Message, system: str) -> list[int]:
        """The ids of message `n`, the system text, if any, in front of its own."""
        if system:
            first = self._first
            if first is None or first[0] is not message or first[1] != system:
                self._first = first = message, system, self._made(n, message, system)
            return first[2]
        known = self._known.get(id(message))
        if known is None:
            known = self._known[id(message)] = message, self._made(n, message, system)
        return known[1]

    def _made(self, n: int, message: Message, system: str) -> list[int]:
        if n != _CHECKED:
            template.check(n, message)
        return template.message_ids(self._model, message, system)

    def _remember_only(self, messages: Sequence[Message]) -> None:
        """Let go of the ids of all other messages."""
        known = self._known
        kept = (id(message) for message in messages)
        self._known = {key: known[key] for key in kept if key in known}

    def _system_text(self) -> str:
        return self.system.strip() if self.system else ""
