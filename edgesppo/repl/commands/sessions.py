"""Commands on saved chats: list, start, load, save, rename and delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.repl.attachments import still_attached
from edgesppo.sessions.file import damaged_copies
from edgesppo.system.shell import shell_word
from edgesppo.system.signals import shielded
from edgesppo.terminal.format import ago, n_turns, one_line

if TYPE_CHECKING:
    from edgesppo.repl.commands.context import CommandContext
    from edgesppo.sessions.folder import Entry
    from edgesppo.sessions.session import Session


def sessions(ctx: CommandContext, _argument: str) -> None:
    """/sessions: list the saved chats, but for those of which all turns were removed."""
    name = ctx.state.name
    entries = [
        entry
        for entry in ctx.state.setup.sessions.entries()
        if entry.n_turns or entry.is_asked or entry.problem or entry.name == name
    ]
    if not entries:
        ctx.say("(no saved chats)")
    ctx.say_list([_described(entry, name) for entry in entries])


def _described(entry: Entry, current: str) -> tuple[str, ...]:
    marked = f"{entry.name} (current)" if entry.name == current else entry.name
    problem = f" ({entry.problem})" if entry.problem else ""
    return (marked, n_turns(entry.n_turns), ago(entry.last_used), f"{entry.model}{problem}")


def new(ctx: CommandContext, argument: str) -> None:
    """/new [NAME]: start another chat with the same system text and sampling parameters."""
    name = _unquoted(argument)
    saves = name or ctx.state.session is not None
    unnamed = ctx.state.setup.sessions.unnamed
    is_lost = ctx.state.session is None and ctx.state.chat.messages
    _switch(ctx, _new_session(ctx, name) if name else unnamed() if saves else None)
    what = ctx.state.name or "not saved"
    ctx.say(f"(started a new chat, {what}; /load NAME continues an earlier one)")
    if is_lost:
        ctx.say("(the chat before was not saved; /save NAME saves one, before /new)")
    _say_system(ctx)


def _say_system(ctx: CommandContext) -> None:
    """Say which system text a new chat has kept."""
    if text := ctx.state.chat.system:
        ctx.say(f"(it keeps the system text: {one_line(text)}; /system none removes it)")


def _unquoted(name: str) -> str:
    """A name of a chat without double quotes around it, which no name can contain."""
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name


def load(ctx: CommandContext, argument: str) -> None:
    """/load NAME: continue a saved chat; without a name, list them."""
    if not argument:
        sessions(ctx, "")
        return
    name = _unquoted(argument)
    if name == ctx.state.name:
        raise UsageError(f"you are already in the chat {name!r}")
    _switch(ctx, ctx.state.setup.sessions.resume(name))


def save(ctx: CommandContext, argument: str) -> None:
    """/save NAME: save a copy, or start saving a chat that is not saved yet."""
    state = ctx.state
    if not argument:
        ctx.say(
            f"(saved as {state.name}: each turn is written to disk before the next prompt)"
            if state.session
            else "(not saved; save it with /save NAME)"
        )
        return
    if not state.chat.messages:
        raise UsageError("there is nothing to save yet")
    name = _unquoted(argument)
    session = _new_session(ctx, name)
    if state.session is None:
        state.save_as(session)
        ctx.say(f"(saved as {name}; every further turn will be saved, too)")
    else:
        state.copy_to(session)
        ctx.say(f"(saved a copy as {name}; you are still in {state.name})")


def rename(ctx: CommandContext, argument: str) -> None:
    """/rename NAME: give this chat another name."""
    state = ctx.state
    if state.session is None:
        raise UsageError("this chat is not saved; save it with /save NAME")
    if not argument:
        raise UsageError("/rename needs the new name: /rename NAME")
    path = state.setup.sessions.path(_unquoted(argument))
    with shielded():  # or the session might go on under the old name
        state.session.rename(path)
    ctx.say(f"(this chat is now called {state.name})")


def delete(ctx: CommandContext, argument: str) -> None:
    """/delete [NAME]: delete a saved chat, or the current one."""
    state = ctx.state
    name = _unquoted(argument) or state.name
    if not name:
        raise UsageError("this chat is not saved, so there is nothing to delete")
    if name != state.name:
        state.setup.sessions.existing(name)
        if not ctx.interactive:
            raise UsageError(
                f"another chat is deleted only on a terminal, where you are asked first; from a"
                f" pipe, open it (edgesppo chat --session {shell_word(name)}) and send /delete"
            )
    if not ctx.confirm(f"Permanently delete the chat {name!r}?"):
        ctx.say("(not deleted)")
        return
    if name == state.name:
        # Removed turns are still in the file.
        if state.chat.messages or (state.session and state.session.transcript is not None):
            state.delete_session()
        ctx.say(f"(deleted; started a new chat, {state.name})")
        _say_system(ctx)
    else:
        state.setup.sessions.delete(name)
        ctx.say(f"(deleted {name})")
    for copy in damaged_copies(state.setup.sessions.path(name)):
        ctx.say(f"(a damaged copy of it was kept, and still is: {copy})")


def _switch(ctx: CommandContext, session: Session | None) -> None:
    for line in ctx.state.switch(session):
        ctx.say(line)
    if line := still_attached(ctx.attached):
        ctx.say(line)
    ctx.recall()


def _new_session(ctx: CommandContext, name: str) -> Session:
    """Open a session that does not exist yet. Raises UsageError if it does."""
    if name == ctx.state.name:
        raise UsageError(f"this chat is called {name!r} already; choose another name")
    session = ctx.state.setup.sessions.open(name)
    if session.transcript is not None:
        session.close()
        raise UsageError(f"a chat {name!r} already exists; choose another name")
    return session
