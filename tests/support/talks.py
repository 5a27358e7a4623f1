"""Chats on a pseudo-terminal: starting one, and reading or writing saved chats."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgesppo.chat.template import Message
from edgesppo.sessions.folder import Sessions
from edgesppo.sessions.transcript import Conversation, ModelMark
from tests.support.pty_terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path


def on_terminal(model: Path, *options: str, **terminal: Any) -> Terminal:
    words = ["chat", str(model), "--temperature", "0", *options]
    return Terminal([sys.executable, "-m", "edgesppo", *words], **terminal)


def messages_of(name: str) -> list[str]:
    with Sessions().open(name) as session:
        assert session.transcript is not None
        return [part for turn in session.transcript.turns for part in (turn.user, turn.assistant)]


def record(name: str, *texts: str) -> None:
    """Save a chat of alternating user and assistant texts, as if by another model."""
    said = zip(("user", "assistant") * len(texts), texts, strict=False)
    messages = tuple(Message(role, text) for role, text in said)
    with Sessions().open(name) as session:
        by = ModelMark("m", "m.gguf", "0" * 64, 512)
        session.record(Conversation(by, None, {}, messages, 0))
