"""The messages of a chat, and their token ids, which are computed once per message.

A message never changes, but anyone may edit the list of them. So the ids are kept per message, not
per position: a new message is checked and tokenised when it first appears in a prompt, and the ids
of the others are only joined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.chat import template
from edgesppo.chat.messages import MessageList

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgesppo.chat.messages import Message, MessageLike
    from edgesppo.chat.template import ChatTokenizer

# A trimmed prompt takes at most one part in so many of the room, so that a long chat is prefilled
# again only now and then, and not at every turn.
_TRIMMED_SHARE = 2
# After turns were removed, what is left of a trimmed prompt is little below one part in so many of
# the room: then turns that were left out come back.
_LITTLE_SHARE = 4
# The number of a message that was checked already.
_CHECKED = 0


class History:
    """The messages of a chat, its system text, and how many of its oldest turns prompts leave out.

    A turn is two messages: a user's and the answer to it.
    """

    def __init__(
        self,
        model: ChatTokenizer,
        messages: Iterable[MessageLike] = (),
        *,
        system: str | None = None,
        left_out: int = 0,
    ) -> None:
        self.messages = MessageList(messages)
        self.system = system
        self._left_out = left_out
        self._asked: Message | None = None  # the question of the latest prompt
        self._model = model
        # Keyed by the message's id(), which stays unique while the message is kept here.
        self._known: dict[int, tuple[Message, list[int]]] = {}
        # The first message, the system text in front of it, and the ids of both.
        self._first: tuple[Message, str, list[int]] | None = None

    @property
    def left_out(self) -> int:
        """The number of oldest turns that the latest prompt left out, of those still there."""
        return min(self._left_out, len(self.messages) // 2)

    @left_out.setter
    def left_out(self, turns: int) -> None:
        self._left_out = turns

    def encode(
        self, more: Sequence[Message] = (), *, left_out: int = 0, answering: bool = True
    ) -> list[int]:
        """The prompt for the history, without its oldest `left_out` turns, and `more` messages.

        The ids equal those of `template.encode`, which says what `answering` does. Raises
        UsageError for a message out of turn.
        """
        ids = self._join(left_out, len(self.messages), more, answering=answering)
        self._remember_only(self.messages[2 * left_out :])
        return ids

    def fit(
        self, question: Message, after: int, room: int, *, trims: bool = True
    ) -> tuple[list[int], int]:
        """The prompt for a question after the first `after` messages, in at most `room` tokens.

        Returns its ids, and how many of the oldest turns it leaves out to fit. It may still be too
        long without any turn, or if `trims` is off: then no more turns are left out than before.
        The caller has checked that the question is valid text.
        """
        turns = after // 2
        left_out = min(self.left_out, turns)
        new = self._ids(_CHECKED, question, self._system_text() if after <= 2 * left_out else "")
        if left_out and not self._has_only_grown(after):
            left_out = self._recover(after, room, len(new), left_out)
        if trims and left_out < turns:
            left_out = self._trim(after, room, len(new), left_out)
        ids = self._join(left_out, after, [question])
        while trims and len(ids) > room and left_out < turns:
            left_out += 1  # joined to the system text, a turn can take one token more
            ids = self._join(left_out, after, [question])
        self._remember_only([*self.messages[2 * left_out : after], question])
        return ids, left_out

    def note(self, question: Message, left_out: int) -> None:
        """Remember what the latest prompt asked, and how many of the oldest turns it left out."""
        self._asked, self._left_out = question, left_out

    def _has_only_grown(self, after: int) -> bool:
        """Whether the question of the latest prompt was answered, and nothing removed since.

        Only then are turns that did not fit sure not to fit now.
        """
        return after >= 2 and self.messages[after - 2] is self._asked

    def _recover(self, after: int, room: int, n_question: int, left_out: int) -> int:
        """How many of the `left_out` turns to leave out still, where others were removed."""
        taken = n_question + self._n_around()
        if self._n_excess(after, room - taken, 0) == 0:
            return 0
        if self._n_excess(after, room // _LITTLE_SHARE - taken, left_out) > left_out:
            return left_out
        return self._n_excess(after, room // _TRIMMED_SHARE - taken, 0)

    def _n_around(self) -> int:
        """The tokens around the messages of a prompt: <bos>, <start_of_turn> and the role."""
        return 2 + len(self._model.answer_head)

    def _trim(self, after: int, room: int, n_question: int, left_out: int) -> int:
        """How many of the oldest turns to leave out, if `left_out` are left out already."""
        trimmed_room = room // _TRIMMED_SHARE
        taken = n_question + self._n_around()
        if self._n_excess(after, room - taken, left_out) == left_out:
            return left_out
        at, system = 2 * left_out, self._system_text()
        # The system text will be in front of another turn.
        taken += len(self._ids_at(at, system)) - len(self._ids_at(at, ""))
        return self._n_excess(after, trimmed_room - taken, left_out)

    def _n_excess(self, after: int, room: int, left_out: int) -> int:
        """How many of the oldest turns to leave out, so that the rest takes at most `room` tokens.

        Counts from the newest turn, so that the time depends on `room`, not on the history.
        """
        for n in range(after // 2, left_out, -1):
            system = self._system_text() if n == left_out + 1 else ""
            room -= len(self._ids_at(2 * n - 2, system)) + len(self._ids_at(2 * n - 1, ""))
            if room < 0:
                return n
        return left_out

    def _join(
        self, left_out: int, after: int, more: Sequence[Message], *, answering: bool = True
    ) -> list[int]:
        """The prompt for the first `after` messages, without `left_out` turns, and for `more`."""
        start = 2 * left_out
        return template.assemble(
            self._model,
            [*self.messages[start:after], *more],
            self._ids,
            system=self._system_text(),
            start=self._number(start),
            answering=answering,
        )

    def _number(self, index: int) -> int:
        """A message's number in errors; the system text, if any, is number 1."""
        return index + (2 if self.system else 1)

    def _ids_at(self, index: int, system: str) -> list[int]:
        return self._ids(self._number(index), self.messages[index], system)

    def _ids(self, n: int, message: Message, system: str) -> list[int]:
        """The ids of message number `n`, with the system text, if any, in front of its own."""
        if system:
            first = self._first
            if first is None or first[0] is not message or first[1] != system:
                self._first = first = message, system, self._compute(n, message, system)
            return first[2]
        known = self._known.get(id(message))
        if known is None:
            known = self._known[id(message)] = message, self._compute(n, message, system)
        return known[1]

    def _compute(self, n: int, message: Message, system: str) -> list[int]:
        """Check and tokenise a message."""
        if n != _CHECKED:
            template.check(n, message)
        return template.message_ids(self._model, message, system)

    def _remember_only(self, messages: Sequence[Message]) -> None:
        """Forget the ids of all other messages."""
        known = self._known
        kept = (id(message) for message in messages)
        self._known = {key: known[key] for key in kept if key in known}

    def _system_text(self) -> str:
        return self.system.strip() if self.system else ""
