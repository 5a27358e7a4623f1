"""Owns the commands that give the chat away: to a file, to the clipboard."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.repl import chat_export as formats
from edgesppo.system.fs import Files, cannot_write, write_whole
from edgesppo.system.paths import given
from edgesppo.terminal import clipboard
from edgesppo.terminal.format import n_turns

if TYPE_CHECKING:
    from edgesppo.repl.commands.context import Desk

_CODE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.M | re.S)


def export(desk: Desk, rest: str) -> None:
    """/export [FILE]."""
    talk, chat = desk.talk, desk.talk.chat
    if not chat.messages:
        raise UsageError("there is nothing to export yet")
    path = given("the file to write", rest or f"{talk.name or 'chat'}.md")
    if path.suffix.lower() not in formats.SUFFIXES:
        raise UsageError(f"{path} is to end in {' or '.join(formats.SUFFIXES)}")
    if os.path.lexists(path):
        if not desk.asks:
            raise UsageError(f"{path} is there already; remove it, or choose another name")
        if not desk.confirm(f"Replace {path}?"):
            desk.say("(nothing written)")
            return
    if path.suffix.lower() == ".json":
        sampling = dataclasses.asdict(chat.params)
        text = formats.to_json(talk.loaded.name, chat.system, sampling, chat.messages)
    else:
        title = talk.name or "Chat"
        text = formats.to_markdown(title, talk.loaded.name, chat.system, chat.messages)
    _write(path, text)
    desk.say(f"(wrote {path}: {n_turns(len(chat.messages) // 2)})")


def _write(path: Path, text: str) -> None:
    """The file whole, or not at all; what a link names, and not the link."""
    try:
        write_whole(Path(os.path.realpath(path)), text.encode("utf-8"), files=Files())
    except OSError as error:
        raise cannot_write(path, error) from None


def copy(desk: Desk, rest: str) -> None:
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


def _copy(desk: Desk, text: str) -> None:
    program = clipboard.by_program(text)
    if program is not None:
        desk.say(f"(copied {len(text):,} characters, with {program})")
        return
    escape = clipboard.by_terminal(text)
    if escape is None or not desk.edits:
        raise UsageError("no way to the clipboard from here; /export FILE writes the chat")
    desk.write(escape)
    desk.say(f"(asked the terminal to copy {len(text):,} characters)")
