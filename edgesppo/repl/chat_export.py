"""Owns a chat as a file for people or for programs: Markdown, JSON. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgesppo.repl.last_turn import unfinished

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo.chat.template import Message

SUFFIXES = (".md", ".json")


def to_markdown(title: str, model: str, system: str | None, messages: Sequence[Message]) -> str:
    """The chat as a person reads it; what was said is not changed."""
    parts = [f"# {title}", f"Model: {model}"]
    if system:
        parts += ["## System", system]
    names = {"user": "You", "assistant": "Answer"}
    for message in messages:
        parts += [f"## {names[message.role]}{unfinished(message)}", message.content.strip("\n")]
    return "\n\n".join(parts) + "\n"


def to_json(
    model: str, system: str | None, sampling: Mapping[str, Any], messages: Sequence[Message]
) -> str:
    """The chat as roles and contents, how each answer ended, and how it was sampled."""
    head = [{"role": "system", "content": system}] if system else []
    turns = [
        {"role": message.role, "content": message.content}
        | ({"finish_reason": message.finish_reason} if message.finish_reason else {})
        for message in messages
    ]
    found = {"model": model, "sampling": dict(sampling), "messages": [*head, *turns]}
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"
