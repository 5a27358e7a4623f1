"""Commands on turns: answer again, continue, edit, undo, clear, attach files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.repl import attachments
from edgesppo.terminal import editor
from edgesppo.terminal.format import n_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.repl.commands.context import CommandContext


def regenerate(ctx: CommandContext, _argument: str) -> None:
    """/regen: answer the last message again, or one that an earlier run did not get to answer."""
    chat, unanswered = ctx.state.chat, ctx.state.asked
    if unanswered:
        ctx.show(chat.stream(unanswered), unanswered)
    else:
        ctx.show(chat.regenerate(), "")


def continue_(ctx: CommandContext, _argument: str) -> None:
    """/continue: continue the last answer."""
    chat = ctx.state.chat
    before = chat.messages[-1:]
    ctx.show(chat.continue_(), "")
    if chat.messages[-1:] == before:
        ctx.say("(nothing to add: the answer is complete)")


def edit(ctx: CommandContext, _argument: str) -> None:
    """/edit: edit and resend the last message, or write the first one."""
    if not ctx.interactive:
        raise UsageError("/edit needs a terminal; /undo removes the last turn")
    chat = ctx.state.chat
    asked = chat.messages[-2].content if chat.messages else ""
    with ctx.release_keyboard():
        text = editor.edit(asked)
    if not text.strip() or text == asked:
        ctx.say("(nothing changed)")
        return
    ctx.say("\n".join(f"> {line}" for line in text.split("\n")))
    ctx.show(chat.regenerate(text) if chat.messages else chat.stream(text), text)


def undo(ctx: CommandContext, _argument: str) -> None:
    """/undo: remove the last attached file, or the last turn."""
    if ctx.attached:
        ctx.say(f"(removed the file {ctx.attached.pop().name})")
        return
    ctx.say(f"(removed: {_first_line(ctx.state.chat.undo())})")


def clear(ctx: CommandContext, _argument: str) -> None:
    """/clear: remove all turns."""
    ctx.state.chat.clear()
    ctx.attached.clear()
    ctx.say("(removed all turns of this chat)")


def read(ctx: CommandContext, argument: str) -> None:
    """/read FILE: attach a file to the next message, and say how many tokens it has."""
    if not argument:
        names = ", ".join(file.name for file in ctx.attached)
        ctx.say(
            f"(attached to the next message: {names})"
            if names
            else "(no file is attached; /read FILE attaches one)"
        )
        return
    file = attachments.read(argument)
    ctx.attached.append(file)
    state = ctx.state
    n_ctx, used = state.loaded.engine.n_ctx, state.n_tokens()
    size, n = _size(ctx, [file])
    ctx.say(f"({file.name}: {size}, attached to the next message; /undo removes it)")
    size, waiting = (size, n) if len(ctx.attached) == 1 else _size(ctx, ctx.attached)
    if waiting >= n_ctx:
        ctx.say(
            f"warning: this does not fit: {size}, but the context holds {n_ctx:,}; "
            "remove it with /undo, or restart with a larger --n-ctx"
        )
    elif used + waiting >= n_ctx:
        ctx.say(
            f"warning: with the {used:,} tokens of the chat this exceeds the context of {n_ctx:,} "
            "tokens: the oldest turns will be left out"
        )


def _size(ctx: CommandContext, files: Sequence[attachments.Attachment]) -> tuple[str, int]:
    """The number of tokens of files, as text and as int; a lower bound if they cannot fit."""
    text, loaded = attachments.join(files, ""), ctx.state.loaded
    fewest = loaded.model.fewest_tokens(text)
    if fewest >= loaded.engine.n_ctx:
        return f"at least {n_tokens(fewest)}", fewest
    n = len(loaded.tokenize(text))
    return n_tokens(n), n


def _first_line(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def message(ctx: CommandContext, text: str) -> str:
    """The next message with its attached files. Raises UsageError if it is empty."""
    if not text.strip() and not ctx.attached:
        raise UsageError("the message is empty")
    return attachments.join(ctx.attached, text)
