"""The events of a saved chat, and the turns and settings that they describe.

    {"edgesppo": "chat", "version": 1, "by": MODEL, "system": "..." | null, "sampling": {...},
     "overflow": "error"}                      without it, "trim"
    {"turn": 3, "user": "...", "assistant": "...", "ids": [...] | null, "left_out": 0,
     "finish_reason": "stop" | "length" | "cancelled"}            not in older files
    {"asked": "..." | null}                   a question that was sent; a turn answers it, null
                                              withdraws it
    {"keep": 2}                               all turns after the second are removed
    {"system": "..." | null, "sampling": {...}, "overflow": "error"}     without it, "trim"
    {"by": MODEL}                             another model, or another context, continues

MODEL is {"name", "path", "fingerprint", "n_ctx"}; every event has "at", in seconds since 1970. An
event of turn N replaces turn N and all later ones, so a new answer to the last question is one
event. Events are only ever appended.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from edgesppo.chat.choices import Overflow
from edgesppo.chat.messages import Message
from edgesppo.sampling.params import valid_values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.system.jsonl import Line

KIND, VERSION = "chat", 1
FINISH_REASONS = ("stop", "length", "cancelled")


@dataclass(frozen=True)
class ModelMark:
    """The model that answers: its name, file, fingerprint, and context in tokens."""

    name: str
    path: str
    fingerprint: str
    n_ctx: int


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    `ids` are the answer's token ids, in the vocabulary of the model with this `fingerprint`.
    `finish_reason` says how the answer ended; None if unknown.
    """

    user: str
    assistant: str
    ids: tuple[int, ...] | None
    fingerprint: str
    finish_reason: str | None = None


@dataclass(frozen=True)
class Conversation:
    """The state of a chat at a moment: the model that answers, the settings and the messages."""

    by: ModelMark
    system: str | None
    sampling: dict[str, Any]
    messages: tuple[Message, ...]
    left_out: int
    asked: str | None = None  # a question that was sent and is not answered yet
    overflow: Overflow = "trim"

    @property
    def turns(self) -> list[Turn]:
        """The messages as turns."""
        pairs = zip(self.messages[::2], self.messages[1::2], strict=True)
        mark = self.by.fingerprint
        return [
            Turn(asked.content, got.content, got.ids, mark, got.finish_reason)
            for asked, got in pairs
        ]


class Transcript:
    """The state of a chat after its events so far.

    The constructor and `apply` raise ValueError or TypeError for an invalid event.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        if header.get("edgesppo") != KIND or header.get("version") != VERSION:
            raise ValueError("not the header of a saved chat")
        self.by = _mark(header.get("by"))
        self.system, self.sampling, self.overflow = _settings(header)
        self.turns: list[Turn] = []
        self.asked: str | None = None  # a question that was sent and not answered
        self._left_out = 0

    def drop_invalid_sampling(self) -> list[str]:
        """Remove invalid sampling parameters; returns a message for each."""
        self.sampling, complaints = valid_values(self.sampling)
        return complaints

    def apply(self, event: dict[str, Any]) -> None:
        """Apply the next event."""
        if "turn" in event:
            self._apply_turn(event)
        elif "keep" in event:
            keep = _count(event["keep"], len(self.turns))
            del self.turns[keep:]
        elif "asked" in event:
            self.asked = _text(event["asked"])
        elif "by" in event:
            self.by = _mark(event["by"])
            self._left_out = 0
        else:
            self.system, self.sampling, self.overflow = _settings(event)

    def _apply_turn(self, event: dict[str, Any]) -> None:
        before = _count(event["turn"], len(self.turns) + 1) - 1
        user, assistant, ids = event.get("user"), event.get("assistant"), event.get("ids")
        if before < 0 or not isinstance(user, str) or not isinstance(assistant, str):
            raise ValueError("not a turn")
        left_out = _count(event.get("left_out"), before)
        known = None if ids is None else tuple(_count(id_) for id_ in ids)
        reason = event.get("finish_reason")
        end = reason if reason in FINISH_REASONS else None
        self.turns[before:] = [Turn(user, assistant, known, self.by.fingerprint, end)]
        self._left_out = left_out
        self.asked = None

    def messages(self, fingerprint: str) -> list[Message]:
        """The messages of all turns, for the model with this fingerprint.

        An answer has its token ids only if this model gave it: they mean nothing to another.
        """
        found: list[Message] = []
        for turn in self.turns:
            ids = turn.ids if turn.fingerprint == fingerprint else None
            answer = Message("assistant", turn.assistant, ids, turn.finish_reason)
            found += [Message("user", turn.user), answer]
        return found

    def left_out(self, by: ModelMark) -> int:
        """How many of the oldest turns the last prompt left out; 0 for another model or context."""
        same = (by.fingerprint, by.n_ctx) == (self.by.fingerprint, self.by.n_ctx)
        return min(self._left_out, len(self.turns)) if same else 0


def replay(lines: Iterable[Line]) -> tuple[Transcript | None, Line | None]:
    """Apply events up to the first invalid one; returns the transcript and the last valid line.

    Both are None if the first event is not a valid header. No line is asked for before the one
    before it was applied.
    """
    transcript: Transcript | None = None
    last: Line | None = None
    for line in lines:
        try:
            if transcript is None:
                transcript = Transcript(line.event)
            else:
                transcript.apply(line.event)
        except (ValueError, TypeError):
            break
        last = line
    return transcript, last


def changes(before: Transcript | None, now: Conversation) -> list[dict[str, Any]]:
    """The events that turn the recorded state (None: nothing recorded) into the present one."""
    settings: dict[str, Any] = {"system": now.system, "sampling": now.sampling}
    if now.overflow != "trim":
        settings["overflow"] = now.overflow
    events: list[dict[str, Any]] = []
    if before is None:
        head = {"edgesppo": KIND, "version": VERSION, "by": asdict(now.by), **settings}
        before = Transcript(head)
        events.append(head)
    known = before.system, before.sampling, before.overflow
    if known != (now.system, now.sampling, now.overflow):
        events.append(settings)
    turns = now.turns
    kept = _common(before.turns, turns, now.by.fingerprint)
    if before.by != now.by and kept < len(turns):
        events.append({"by": asdict(now.by)})
    if len(turns) == kept < len(before.turns):
        events.append({"keep": kept})
    for n, turn in enumerate(turns[kept:], kept):
        words = {"user": turn.user, "assistant": turn.assistant, "ids": turn.ids}
        end = {} if turn.finish_reason is None else {"finish_reason": turn.finish_reason}
        events.append({"turn": n + 1, **words, "left_out": min(now.left_out, n), **end})
    if now.asked != (None if len(turns) > kept else before.asked):
        events.append({"asked": now.asked})
    at = int(time.time())
    return [{**event, "at": at} for event in events]


def _common(recorded: Iterable[Turn], turns: Iterable[Turn], fingerprint: str) -> int:
    """How many leading turns are recorded unchanged, ignoring token ids of another model."""
    n = 0
    for old, new in zip(recorded, turns, strict=False):
        ids = old.ids if old.fingerprint == fingerprint else None
        before = (old.user, old.assistant, ids, old.finish_reason)
        if before != (new.user, new.assistant, new.ids, new.finish_reason):
            break
        n += 1
    return n


def _mark(value: Any) -> ModelMark:
    if not isinstance(value, dict):
        raise ValueError("no model")
    mark = ModelMark(**value)
    if not all(isinstance(text, str) for text in (mark.name, mark.path, mark.fingerprint)):
        raise ValueError("a model without name, path or fingerprint")
    _count(mark.n_ctx)
    return mark


def _settings(event: dict[str, Any]) -> tuple[str | None, dict[str, Any], Overflow]:
    sampling, overflow = event.get("sampling"), event.get("overflow", "trim")
    if not isinstance(sampling, dict) or overflow not in get_args(Overflow):
        raise ValueError("no settings")
    return _text(event.get("system")), sampling, overflow


def _text(value: Any) -> str | None:
    if not (value is None or isinstance(value, str)):
        raise ValueError(f"{value!r} is not a text")
    return value


def _count(value: Any, most: int | None = None) -> int:
    if type(value) is not int or value < 0 or (most is not None and value > most):
        raise ValueError(f"{value!r} is not a count")
    return value
