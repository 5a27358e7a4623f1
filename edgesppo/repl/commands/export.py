"""Commands that copy the chat elsewhere: /export to a file, /copy to the clipboard."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.repl import file_names
from edgesppo.repl.last_turn import unfinished
from edgesppo.system.fs import write_file
from edgesppo.system.paths import expand_user
from edgesppo.terminal import clipboard
from edgesppo.terminal.format import n_turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo.chat.messages import Message
    from edgesppo.repl.commands.context import CommandContext

_SUFFIXES = (".md", ".json")
_CODE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.M | re.S)


def export(ctx: CommandContext, argument: str) -> None:
    """/export [FILE]: write the chat as Markdown or JSON, by the suffix."""
    state, chat = ctx.state, ctx.state.chat
    if not chat.messages:
        raise UsageError("there is nothing to export yet")
    name = file_names.single(argument, "/export") or f"{state.name or 'chat'}.md"
    path = expand_user("the file to write", name)
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path} must end in {' or '.join(_SUFFIXES)}")
    if os.path.lexists(path):
        if not ctx.interactive:
            raise UsageError(f"{path} already exists; remove it, or choose another name")
        if not ctx.confirm(f"Overwrite {path}?"):
            ctx.say("(nothing written)")
            return
    if path.suffix.lower() == ".json":
        sampling = dataclasses.asdict(chat.params)
        text = to_json(state.loaded.name, chat.system, sampling, chat.messages)
    else:
        title = state.name or "Chat"
        text = to_markdown(title, state.loaded.name, chat.system, chat.messages)
    _write(path, text)
    ctx.say(f"(wrote {path}: {n_turns(len(chat.messages) // 2)})")


def _write(path: Path, text: str) -> None:
    """Write the file atomically; a symbolic link stays, its target is replaced."""
    write_file(Path(os.path.realpath(path)), text.encode("utf-8"))


def copy(ctx: CommandContext, argument: str) -> None:
    """/copy [code]: copy the last answer, or its last code block."""
    messages = ctx.state.chat.messages
    if not messages:
        raise UsageError("there is no answer to copy yet")
    text = messages[-1].content
    if argument == "code":
        blocks = _CODE.findall(text)
        if not blocks:
            raise UsageError("the last answer has no code block")
        text = blocks[-1][1]
    elif argument:
        raise UsageError(f"/copy takes no argument or the word code, not {argument!r}")
    _copy(ctx, text)


def _copy(ctx: CommandContext, text: str) -> None:
    program = clipboard.copy_with_program(text)
    if program is not None:
        ctx.say(f"(copied {len(text):,} characters with {program})")
        return
    escape = clipboard.osc52(text)
    if escape is None or not ctx.rich:
        raise UsageError(
            "no clipboard can be reached from here; write the chat to a file with /export FILE"
        )
    ctx.write(escape)
    ctx.say(f"(asked the terminal to copy {len(text):,} characters)")


def to_markdown(title: str, model: str, system: str | None, messages: Sequence[Message]) -> str:
    """The chat as Markdown; the text of its messages is not changed."""
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
    """The chat as JSON: model, sampling parameters, and messages with finish reasons."""
    head = [{"role": "system", "content": system}] if system else []
    turns = [
        {"role": message.role, "content": message.content}
        | ({"finish_reason": message.finish_reason} if message.finish_reason else {})
        for message in messages
    ]
    chat = {"model": model, "sampling": dict(sampling), "messages": [*head, *turns]}
    return json.dumps(chat, ensure_ascii=False, indent=1) + "\n"
