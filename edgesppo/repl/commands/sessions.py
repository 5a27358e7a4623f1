"""Owns the commands on saved chats: which there are, going on with one, naming, deleting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.terminal.format import ago, n_turns

if TYPE_CHECKING:
    from edgesppo.repl.commands.context import CommandContext
    from edgesppo.sessions.folder import Entry
    from edgesppo.sessions.session import Session


def sessions(desk: CommandContext, _rest: str) -> None:
    """/sessions."""
    entries = desk.talk.setup.sessions.entries()
    if not entries:
        desk.say("(no saved chats)")
    desk.say_list([_described(entry, desk.talk.name) for entry in entries])


def _described(entry: Entry, here: str) -> tuple[str, ...]:
    marked = f"{entry.name} (here)" if entry.name == here else entry.name
    problem = f" ({entry.problem})" if entry.problem else ""
    return (marked, n_turns(entry.n_turns), ago(entry.last_used), f"{entry.model}{problem}")


def new(desk: CommandContext, rest: str) -> None:
    """/new [NAME]."""
    _switch(desk, _fresh(desk, rest) if rest else desk.talk.setup.sessions.unnamed())
    desk.say(f"(a new chat, {desk.talk.name}; /load goes back)")


def load(desk: CommandContext, rest: str) -> None:
    """/load NAME."""
    if not rest:
        sessions(desk, "")
        return
    if rest == desk.talk.name:
        raise UsageError(f"{rest!r} is the chat you are in")
    _switch(desk, desk.talk.setup.sessions.resume(rest))


def save(desk: CommandContext, rest: str) -> None:
    """/save NAME: a copy; what nobody kept so far is kept from now on."""
    talk = desk.talk
    if not rest:
        desk.say(
            f"(saved as {talk.name}: every turn is on the disk when the prompt comes back)"
            if talk.session
            else "(not saved; /save NAME does)"
        )
        return
    if not talk.chat.messages:
        raise UsageError("there is nothing to save yet")
    session = _fresh(desk, rest)
    if talk.session is None:
        talk.keep_as(session)
        desk.say(f"(saved as {rest}, and every turn from now on)")
    else:
        talk.copy_to(session)
        desk.say(f"(a copy is saved as {rest}; this chat goes on as {talk.name})")


def rename(desk: CommandContext, rest: str) -> None:
    """/rename NAME."""
    talk = desk.talk
    if talk.session is None:
        raise UsageError("this chat is not saved; /save NAME does")
    if not rest:
        raise UsageError("/rename NAME, the new name")
    talk.session.rename(talk.setup.sessions.path(rest))
    desk.say(f"(this chat is now called {talk.name})")


def delete(desk: CommandContext, rest: str) -> None:
    """/delete [NAME]."""
    talk = desk.talk
    name = rest or talk.name
    if not name:
        raise UsageError("this chat is not saved")
    if name != talk.name:
        talk.setup.sessions.existing(name)
    if not desk.confirm(f"Delete the chat {name!r} for good?"):
        desk.say("(kept)")
        return
    if name == talk.name:
        # Turns that were taken back are in the file all the same.
        if talk.chat.messages or (talk.session and talk.session.transcript is not None):
            talk.forget_session()
        desk.say(f"(deleted; a new chat begins, {talk.name})")
    else:
        talk.setup.sessions.delete(name)
        desk.say(f"(deleted {name})")


def _switch(desk: CommandContext, session: Session) -> None:
    for line in desk.talk.switch(session):
        desk.say(line)
    desk.attached.clear()
    desk.recall()


def _fresh(desk: CommandContext, name: str) -> Session:
    """A session that does not exist yet."""
    session = desk.talk.setup.sessions.open(name)
    if session.transcript is not None:
        session.close()
        raise UsageError(f"there is a chat {name!r} already; choose another name")
    return session
