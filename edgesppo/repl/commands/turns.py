"""Commands on turns: answer again, continue, edit, undo, clear, attach files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgesppo.chat.dialogue import dialogue
from edgesppo.errors import ContextOverflow, UsageError
from edgesppo.repl import attachments
from edgesppo.system.validate import quoted
from edgesppo.terminal import editor
from edgesppo.terminal.format import n_tokens, n_turns, oldest_turns, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.repl.attachments import Attachment
    from edgesppo.repl.commands.context import CommandContext
    from edgesppo.repl.state import ReplState


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
    if ctx.state.asked:
        raise UsageError("the last message has no answer yet: /regen answers it, /undo removes it")
    before = chat.messages[-1:]
    ctx.show(chat.continue_(), "")
    if chat.messages[-1:] == before:
        ctx.say("(nothing to add: the answer is complete)")


def edit(ctx: CommandContext, argument: str) -> None:
    """/edit [TEXT]: send TEXT, or the last message as edited, instead of the last message.

    A text that gets no answer is offered under the Up key.
    """
    chat, unanswered = ctx.state.chat, ctx.state.asked
    asked = unanswered or (chat.messages[-2].content if chat.messages else "")
    text = argument or _from_editor(ctx, asked)
    if not text.strip() or text == asked:
        ctx.say("(nothing changed)")
        return
    if not argument:
        ctx.say("\n".join(f"> {line}" for line in text.split("\n")))
    before = list(chat.messages)
    replaces = chat.messages and not unanswered
    try:
        with ctx.state.asking(text):
            ctx.show(chat.regenerate(text) if replaces else chat.stream(text), text)
    finally:
        if chat.messages == before:
            ctx.put_back(f"/edit {text}")


def _from_editor(ctx: CommandContext, asked: str) -> str:
    if not ctx.interactive:
        raise UsageError("/edit needs a terminal; /edit TEXT sends TEXT instead")
    with ctx.release_keyboard():
        return editor.edit(asked)


def undo(ctx: CommandContext, argument: str) -> None:
    """/undo [N]: remove the last N turns; while files are attached, the last N files."""
    n = _count(argument) if argument else 1
    if ctx.attached:
        _detach(ctx, n)
        return
    chat = ctx.state.chat
    dialogue(chat).settle()
    held, unanswered = len(chat.messages) // 2, ctx.state.asked
    most = held + bool(unanswered)
    if 0 < most < n:
        raise UsageError(f"/undo {n}: the chat has only {n_turns(most)}; /clear removes them all")
    if unanswered:  # it was sent last
        ctx.state.withdraw()
        ctx.say(f"(removed, not answered: {one_line(unanswered)})")
        n -= 1
        if n == 0:
            return
    removed = [chat.undo() for _ in range(n)]
    dialogue(chat).take_up()
    many = f" {n_turns(n)}, from" if n > 1 else ""
    ctx.say(f"(removed{many}: {one_line(removed[-1])})")


def _detach(ctx: CommandContext, n: int) -> None:
    if n > len(ctx.attached):
        raise UsageError(
            f"/undo {n}: the files attached are {len(ctx.attached)}, and go first; remove them with"
            f" /undo {len(ctx.attached)}, then turns"
        )
    names = ", ".join(file.name for file in ctx.attached[-n:])
    del ctx.attached[-n:]
    ctx.say(f"(removed the file {names})" if n == 1 else f"(removed {n} files: {names})")


def _count(argument: str) -> int:
    if re.fullmatch("0*[1-9][0-9]{0,8}", argument) is None:
        raise UsageError(
            f"/undo takes a number of turns, 1 or more, not {quoted(argument)}; /clear removes all"
        )
    return int(argument)


def clear(ctx: CommandContext, _argument: str) -> None:
    """/clear: remove all turns; attached files stay attached to the next message."""
    ctx.state.chat.clear()
    ctx.state.withdraw()
    system = ctx.state.chat.system
    kept = f"; it keeps its system text: {one_line(system)}" if system else ""
    ctx.say(f"(removed all turns of this chat{kept})")
    if line := attachments.still_attached(ctx.attached):
        ctx.say(line)


def read(ctx: CommandContext, argument: str) -> None:
    """/read FILE ...: attach files to the next message, and say how many tokens they have."""
    if not argument:
        names = ", ".join(file.name for file in ctx.attached)
        ctx.say(
            f"(attached to the next message: {names})"
            if names
            else "(no file is attached; /read FILE attaches one)"
        )
        return
    files = attachments.read(argument, ctx.attached)
    if not files:
        raise UsageError(f"{quoted(argument)} names no file; give one, as in /read notes.txt")
    size, _ = ctx.state.size(attachments.join(files, ""))
    warning = _warning(ctx.state, [*ctx.attached, *files])
    ctx.attached += files
    names = ", ".join(file.name for file in files)
    removal = "it" if len(files) == 1 else f"the last one, /undo {len(files)} all"
    ctx.say(f"({names}: {size}, attached to the next message; /undo removes {removal})")
    if warning:
        ctx.say(warning)


def _warning(state: ReplState, attached: Sequence[Attachment]) -> str:
    """A warning if the next message, with these files, takes too much room; else empty."""
    text, n_ctx = attachments.join(attached, ""), state.loaded.n_ctx
    try:
        n, left_out = dialogue(state.chat).draft(text)
        size = f"{n_tokens(n)} with the rest of the prompt"
    except ContextOverflow:
        (size, n), left_out = state.size(text), 0
    if n >= n_ctx:
        which = "the last one" if len(attached) > 1 else "it"
        return f"{state.too_long(size)}; remove {which} with /undo"
    if left_out > state.chat.left_out:
        return f"warning: to make room for it, {oldest_turns(left_out)} will be left out"
    return ""


def message(ctx: CommandContext, text: str) -> str:
    """The next message with its attached files. Raises UsageError if it is empty."""
    if not text.strip() and not ctx.attached:
        raise UsageError("the message is empty")
    return attachments.join(ctx.attached, text)
