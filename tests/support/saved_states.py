"""Chats as they are saved, state by state, and what is found when one is opened again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.chat.messages import Message
from edgesppo.sessions.session import Session
from edgesppo.sessions.transcript import Conversation, ModelMark
from tests.support.faulty import Counting

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BY = ModelMark("demo", "/models/demo.gguf", "f" * 64, 512)
OTHER = ModelMark("other", "/models/other.gguf", "0" * 64, 512)


def said(
    *answers: str, by: ModelMark = BY, system: str | None = None, left_out: int = 0
) -> Conversation:
    """A chat with these answers, each to a question full of characters that need escaping."""
    messages: list[Message] = []
    for n, answer in enumerate(answers):
        asked = Message("user", f"{n}: \n\u2028\x00 Grüße \U0001f600 \ud800")
        messages += [asked, Message("assistant", answer, (n, 255_999))]
    return Conversation(by, system, {"temperature": 0.7, "stop": []}, tuple(messages), left_out)


# A chat as it goes: turns, a new answer, two taken back, all forgotten, other settings.
STATES = [
    said("a"),
    said("a", "b"),
    said("a", "B"),
    said("a", "B", "c", "d"),
    said("a", "B"),
    said("a", "B", system="Be brief."),
    said(system="Be brief."),
    said("x", system="Be brief."),
]


def write(path: Path, states: Iterable[Conversation] = STATES) -> bytes:
    with Session(path, Counting()) as session:
        for state in states:
            session.record(state)
    return path.read_bytes()


def found(path: Path, by: ModelMark = BY) -> Conversation | None:
    """The chat as it is when opened again."""
    with Session(path, Counting()) as session:
        held = session.transcript
        if held is None:
            return None
        messages = tuple(held.messages(by.fingerprint))
        return Conversation(by, held.system, held.sampling, messages, held.left_out(by))
