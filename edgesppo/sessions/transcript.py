"""Owns what the lines of a saved chat mean: events <-> its turns and settings.

    {"edgesppo": "chat", "version": 1, "by": MODEL, "system": "..." | null, "sampling": {...}}
    {"turn": 3, "user": "...", "assistant": "...", "ids": [...] | null, "left_out": 0,
     "finish_reason": "stop" | "length" | "cancelled"}            which older files do not tell
    {"keep": 2}                               the turns after the second are taken back
    {"system": "..." | null, "sampling": {...}}
    {"by": MODEL}                             another model, or another context, goes on

MODEL is {"name", "path", "fingerprint", "n_ctx"}; every event has "at", seconds since 1970. Turn N
stands after the N-1 before it and takes the place of what stood there: a new answer to the last
question is one event. Nothing written is ever changed. Pure: knows nothing of files.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.chat.messages import Message
from edgesppo.sampling.params import valid_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KIND, VERSION = "chat", 1
FINISH_REASONS = ("stop", "length", "cancelled")


@dataclass(frozen=True)
class ModelMark:
    """The model that answers: name, file, what tells it from others, and its context in tokens."""

    name: str
    path: str
    fingerprint: str
    n_ctx: int


@dataclass(frozen=True)
class Turn:
    """One question and its answer; `ids` are the answer's tokens, of the model of `fingerprint`.

    `finish_reason` says how the answer ended, None where that is not known.
    """

    user: str
    assistant: str
    ids: tuple[int, ...] | None
    fingerprint: str
    finish_reason: str | None = None


@dataclass(frozen=True)
class Conversation:
    """What a chat is at a moment: who answers, its settings, its turns."""

    by: ModelMark
    system: str | None
    sampling: dict[str, Any]
    messages: tuple[Message, ...]
    left_out: int

    @property
    def turns(self) -> list[Turn]:
        """The messages in pairs."""
        pairs = zip(self.messages[::2], self.messages[1::2], strict=True)
        mark = self.by.fingerprint
        return [
            Turn(asked.content, got.content, got.ids, mark, got.finish_reason)
            for asked, got in pairs
        ]


class Transcript:
    """A chat as its events tell it. `apply` raises ValueError for an event that makes no sense."""

    def __init__(self, header: dict[str, Any]) -> None:
        if header.get("edgesppo") != KIND or header.get("version") != VERSION:
            raise ValueError("not the header of a saved chat")
        self.by = _mark(header.get("by"))
        self.system, self.sampling = _settings(header)
        self.turns: list[Turn] = []
        self._left_out = 0

    def drop_senseless(self) -> list[str]:
        """Go on without the sampling parameters that make no sense; what is wrong with each."""
        self.sampling, complaints = valid_values(self.sampling)
        return complaints

    def apply(self, event: dict[str, Any]) -> None:
        """Go on by one event."""
        if "turn" in event:
            self._apply_turn(event)
        elif "keep" in event:
            keep = _count(event["keep"], len(self.turns))
            del self.turns[keep:]
        elif "by" in event:
            self.by = _mark(event["by"])
            self._left_out = 0
        else:
            self.system, self.sampling = _settings(event)

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

    def messages(self, fingerprint: str) -> list[Message]:
        """The turns for a model. Answers have their tokens only if it is the one that gave them:
        to another they mean something else, or nothing.
        """
        found: list[Message] = []
        for turn in self.turns:
            ids = turn.ids if turn.fingerprint == fingerprint else None
            answer = Message("assistant", turn.assistant, ids, turn.finish_reason)
            found += [Message("user", turn.user), answer]
        return found

    def left_out(self, by: ModelMark) -> int:
        """How many of the oldest turns the prompt left out; 0 for another model or context."""
        same = (by.fingerprint, by.n_ctx) == (self.by.fingerprint, self.by.n_ctx)
        return min(self._left_out, len(self.turns)) if same else 0


def replay(events: Sequence[dict[str, Any]]) -> tuple[Transcript | None, int]:
    """What the events tell, and how many of them make sense; no transcript without a header."""
    transcript: Transcript | None = None
    for n, event in enumerate(events):
        try:
            if transcript is None:
                transcript = Transcript(event)
            else:
                transcript.apply(event)
        except (ValueError, TypeError):
            return transcript, n
    return transcript, len(events)


def changes(before: Transcript | None, now: Conversation) -> list[dict[str, Any]]:
    """The events that lead from what is recorded to what the chat is now."""
    settings = {"system": now.system, "sampling": now.sampling}
    events: list[dict[str, Any]] = []
    if before is None:
        head = {"edgesppo": KIND, "version": VERSION, "by": asdict(now.by), **settings}
        before = Transcript(head)
        events.append(head)
    if (before.system, before.sampling) != (now.system, now.sampling):
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
    at = int(time.time())
    return [{**event, "at": at} for event in events]


def _common(recorded: Iterable[Turn], turns: Iterable[Turn], fingerprint: str) -> int:
    """How many turns are recorded as they are; another model's tokens are none to this one."""
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


def _settings(event: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    system, sampling = event.get("system"), event.get("sampling")
    if not (system is None or isinstance(system, str)) or not isinstance(sampling, dict):
        raise ValueError("no settings")
    return system, sampling


def _count(value: Any, most: int | None = None) -> int:
    if type(value) is not int or value < 0 or (most is not None and value > most):
        raise ValueError(f"{value!r} is no count")
    return value
