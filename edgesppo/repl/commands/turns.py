"""Owns the commands that ask, or change what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.repl import attachments
from edgesppo.terminal import editor
from edgesppo.terminal.format import n_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.repl.commands.context import CommandContext


def regenerate(desk: CommandContext, _rest: str) -> None:
    """/regen."""
    chat = desk.talk.chat
    desk.show(chat.regenerate(), "")


def continue_(desk: CommandContext, _rest: str) -> None:
    """/continue."""
    chat = desk.talk.chat
    before = chat.messages[-1:]
    desk.show(chat.continue_(), "")
    if chat.messages[-1:] == before:
        desk.say("(nothing more: the answer had come to its end)")


def edit(desk: CommandContext, _rest: str) -> None:
    """/edit: the last message once more, or a first one."""
    if not desk.asks:
        raise UsageError("/edit needs a person at a terminal; /undo takes a message back")
    chat = desk.talk.chat
    asked = chat.messages[-2].content if chat.messages else ""
    with desk.free_keys():
        text = editor.edit(asked)
    if not text.strip() or text == asked:
        desk.say("(nothing changed)")
        return
    desk.say("\n".join(f"> {line}" for line in text.split("\n")))
    desk.show(chat.regenerate(text) if chat.messages else chat.stream(text), text)


def undo(desk: CommandContext, _rest: str) -> None:
    """/undo."""
    if desk.attached:
        desk.say(f"(took back the file {desk.attached.pop().name})")
        return
    desk.say(f"(took back: {_first_line(desk.talk.chat.undo())})")


def clear(desk: CommandContext, _rest: str) -> None:
    """/clear."""
    desk.talk.chat.clear()
    desk.attached.clear()
    desk.say("(the chat is forgotten)")


def read(desk: CommandContext, rest: str) -> None:
    """/read FILE: say how large it is before it is sent."""
    if not rest:
        names = ", ".join(file.name for file in desk.attached)
        desk.say(f"(goes with the next message: {names})" if names else "/read FILE, a text file")
        return
    file = attachments.read(rest)
    desk.attached.append(file)
    talk = desk.talk
    n_ctx, used = talk.loaded.engine.n_ctx, talk.n_tokens()
    size, n = _size(desk, [file])
    desk.say(f"({file.name}: {size}; it goes with the next message, /undo takes it back)")
    size, waiting = (size, n) if len(desk.attached) == 1 else _size(desk, desk.attached)
    if waiting >= n_ctx:
        desk.say(
            f"warning: that does not fit: {size}, and the context holds {n_ctx:,}; "
            "take it back with /undo, or load the model with a larger --n-ctx"
        )
    elif used + waiting >= n_ctx:
        desk.say(
            f"warning: with the {used:,} tokens of the chat that is more than the {n_ctx:,} of the "
            "context: its oldest turns will be left out"
        )


def _size(desk: CommandContext, files: Sequence[attachments.Attached]) -> tuple[str, int]:
    """How many tokens files take, in words too; no more are counted than there can be of use."""
    text, loaded = attachments.joined(files, ""), desk.talk.loaded
    fewest = loaded.model.fewest_tokens(text)
    if fewest >= loaded.engine.n_ctx:
        return f"at least {n_tokens(fewest)}", fewest
    n = len(loaded.tokenize(text))
    return n_tokens(n), n


def _first_line(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def message(desk: CommandContext, text: str) -> str:
    """The whole next message, its files with it."""
    if not text.strip() and not desk.attached:
        raise UsageError("an empty message")
    return attachments.joined(desk.attached, text)
