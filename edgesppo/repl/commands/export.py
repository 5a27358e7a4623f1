"""Owns the commands that give the chat away: to a file, to the clipboard."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.repl.last_turn import unfinished
from edgesppo.system.fs import FileSystem, atomic_write, cannot_write
from edgesppo.system.paths import expand_user
from edgesppo.terminal import clipboard
from edgesppo.terminal.format import n_turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo.chat.template import Message
    from edgesppo.repl.commands.context import CommandContext

_SUFFIXES = (".md", ".json")
_CODE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.M | re.S)


def export(desk: CommandContext, rest: str) -> None:
    """/export [FILE]."""
    talk, chat = desk.talk, desk.talk.chat
    if not chat.messages:
        raise UsageError("there is nothing to export yet")
    path = expand_user("the file to write", rest or f"{talk.name or 'chat'}.md")
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path} is to end in {' or '.join(_SUFFIXES)}")
    if os.path.lexists(path):
        if not desk.asks:
            raise UsageError(f"{path} is there already; remove it, or choose another name")
        if not desk.confirm(f"Replace {path}?"):
            desk.say("(nothing written)")
            return
    if path.suffix.lower() == ".json":
        sampling = dataclasses.asdict(chat.params)
        text = to_json(talk.loaded.name, chat.system, sampling, chat.messages)
    else:
        title = talk.name or "Chat"
        text = to_markdown(title, talk.loaded.name, chat.system, chat.messages)
    _write(path, text)
    desk.say(f"(wrote {path}: {n_turns(len(chat.messages) // 2)})")


def _write(path: Path, text: str) -> None:
    """The file whole, or not at all; what a link names, and not the link."""
    try:
        atomic_write(Path(os.path.realpath(path)), text.encode("utf-8"), files=FileSystem())
    except OSError as error:
        raise cannot_write(path, error) from None


def copy(desk: CommandContext, rest: str) -> None:
    """/copy [code]."""
    messages = desk.talk.chat.messages
    if not messages:
        raise UsageError("there is no answer to copy yet")
    text = messages[-1].content
    if rest == "code":
        blocks = _CODE.findall(text)
        if not blocks:
            raise UsageError("the last answer has no block of code")
        text = blocks[-1][1]
    elif rest:
        raise UsageError(f"/copy takes nothing, or the word code, not {rest!r}")
    _copy(desk, text)


def _copy(desk: CommandContext, text: str) -> None:
    program = clipboard.by_program(text)
    if program is not None:
        desk.say(f"(copied {len(text):,} characters, with {program})")
        return
    escape = clipboard.by_terminal(text)
    if escape is None or not desk.edits:
        raise UsageError("no way to the clipboard from here; /export FILE writes the chat")
    desk.write(escape)
    desk.say(f"(asked the terminal to copy {len(text):,} characters)")


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
