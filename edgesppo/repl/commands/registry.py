"""Owns the list of commands: names, what stands behind them, a line of help, what they do.

Each is a function of the desk (what a command may use of the chat's loop) and the rest of the
line. They raise EdgesppoError for what makes no sense; the loop says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.repl.commands import export, info, sessions, turns
from edgesppo.terminal.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.repl.commands.context import CommandContext


@dataclass(frozen=True)
class Command:
    """One command. `takes` says what completes it; `early` ones need no model."""

    name: str
    usage: str
    help: str
    run: Callable[[CommandContext, str], None]
    takes: str = ""
    early: bool = False


def _help(desk: CommandContext, rest: str) -> None:
    if rest:
        command = named(rest if rest.startswith("/") else f"/{rest}")
        if command is None:
            raise _unknown(rest)
        desk.say(f"{command.name} {command.usage}".rstrip() + f"   {command.help}")
        others = [alias for alias, name in _ALIASES.items() if name == command.name]
        if others:
            desk.say(f"The same: {', '.join(others)}")
        return
    desk.say_list([(f"{one.name} {one.usage}", one.help) for one in COMMANDS])
    desk.say("")
    desk.say_list(KEYS if desk.edits else PLAIN_KEYS)


def _unknown(word: str) -> UsageError:
    names = [*(command.name for command in COMMANDS), *_ALIASES]
    return UsageError(
        f"unknown command {word!r}{did_you_mean(word, names)}; /help lists them, and a message"
        " that begins with a slash takes a space before it"
    )


def _exit(desk: CommandContext, _rest: str) -> None:
    desk.leaving = True


_MANY_LINES = ('""" ... """', "many lines; a line that begins with a space is no command")
_STOP = ("Ctrl-C", "stop an answer, what came is kept; twice within a second: leave")
PLAIN_KEYS = (_MANY_LINES, _STOP, ("Ctrl-D", "leave"))
KEYS = (
    ("Alt-Enter, Ctrl-J", "a new line"),
    _MANY_LINES,
    ("Tab", "complete a command, a file's name, a chat's name"),
    ("Ctrl-R", "search what was typed before, in other chats too"),
    ("Ctrl-G", "write the message in $EDITOR"),
    _STOP,
    ("Ctrl-D", "leave"),
)
COMMANDS = (
    Command("/help", "[COMMAND]", "this list", _help, "command", early=True),
    Command("/exit", "", "leave; the chat is saved", _exit, early=True),
    Command("/regen", "", "answer the last message anew", turns.regenerate),
    Command("/continue", "", "go on with an answer that was cut", turns.continue_),
    Command("/edit", "", "change the last message in $EDITOR and ask again", turns.edit),
    Command("/undo", "", "take back the last turn, or a file not sent yet", turns.undo),
    Command("/clear", "", "forget the turns of this chat", turns.clear),
    Command("/read", "FILE", "put a text file into the next message", turns.read, "path"),
    Command(
        "/system", "[TEXT]", "show or set the system text (none: without)", info.system, "text"
    ),
    Command("/set", "[NAME VALUE]", "show or set how answers are drawn", info.set_, "parameter"),
    Command("/show", "", "what runs, how, and where the chat is kept", info.show),
    Command("/stats", "", "tokens and speed of the last answer, and of all", info.stats),
    Command("/tokens", "[TEXT]", "the tokens of a text, or of the chat", info.tokens, "text"),
    Command("/context", "", "what fills the context, and what is left of it", info.context),
    Command("/model", "[MODEL]", "show the model, or go on with another", info.model, "model"),
    Command("/sessions", "", "the saved chats", sessions.sessions, early=True),
    Command("/new", "[NAME]", "begin another chat; this one stays saved", sessions.new),
    Command("/load", "NAME", "go on with a saved chat", sessions.load, "session"),
    Command("/save", "NAME", "save a copy of this chat as it is now", sessions.save),
    Command("/rename", "NAME", "give this chat a name", sessions.rename),
    Command("/delete", "[NAME]", "delete a saved chat, or this one", sessions.delete, "session"),
    Command("/export", "[FILE]", "write the chat to a .md or .json file", export.export, "path"),
    Command(
        "/copy", "[code]", "the last answer, or its code, to the clipboard", export.copy, "copy"
    ),
)
_ALIASES = {
    "/?": "/help",
    "/h": "/help",
    "/bye": "/exit",
    "/quit": "/exit",
    "/q": "/exit",
    "/regenerate": "/regen",
    "/retry": "/regen",
    "/reset": "/clear",
    "/system-prompt": "/system",
    "/resume": "/load",
}


def named(word: str) -> Command | None:
    """The command of that name or alias."""
    name = _ALIASES.get(word, word)
    return next((command for command in COMMANDS if command.name == name), None)


def is_command(line: str) -> bool:
    """Whether it is one: it begins with a slash; of several lines only one that takes a text."""
    if not line.startswith("/"):
        return False
    if "\n" not in line.strip():
        return True
    command = named(line.split()[0])
    return command is not None and command.takes == "text"


def run(desk: CommandContext, line: str) -> None:
    """Do what a command says. Raises EdgesppoError."""
    word, *more = line.strip().split(None, 1)
    rest = more[0] if more else ""
    command = named(word)
    if command is None:
        raise _unknown(word)
    if not command.early:
        desk.wait_for_model()
    command.run(desk, rest.strip())
