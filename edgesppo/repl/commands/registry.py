"""The table of commands: names, arguments, one line of help, and the functions that run them.

A command is a function of the CommandContext and the rest of the line. It raises EdgesppoError
for invalid input, and the loop prints the message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.repl import sampling_settings
from edgesppo.repl.commands import export, info, sessions, turns
from edgesppo.repl.quotes import unquoted
from edgesppo.system.suggest import did_you_mean
from edgesppo.system.validate import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.repl.commands.context import CommandContext


@dataclass(frozen=True)
class Command:
    """One command.

    takes  the kind of its argument, for completion
    early  whether it can run before the model is loaded
    """

    name: str
    usage: str
    help: str
    run: Callable[[CommandContext, str], None]
    takes: str = ""
    early: bool = False


def _help(ctx: CommandContext, argument: str) -> None:
    if argument == "keys":
        ctx.say_list(KEYS if ctx.rich else PLAIN_KEYS)
        return
    if argument:
        if len(argument.split()) > 1:
            raise UsageError(f"/help takes the name of one command, not {quoted(argument)}")
        command = named(argument if argument.startswith("/") else f"/{argument}")
        if command is None:
            raise _unknown(argument, was_sent=False)
        ctx.say(f"{command.name} {command.usage}".rstrip() + f"   {command.help}")
        others = [alias for alias, name in _ALIASES.items() if name == command.name]
        if others:
            ctx.say(f"Aliases: {', '.join(others)}")
        return
    # It fits into a terminal of 24 lines of 80 columns, above the prompt and the status line.
    listed = [one for one in COMMANDS if one.name not in ("/help", "/exit")]
    ctx.say_list([(f"{one.name} {one.usage}", one.help) for one in listed])
    ctx.say("  /exit or Ctrl-D quits; /help COMMAND explains one, /help keys the keys")


def _unknown(word: str, *, was_sent: bool = True) -> UsageError:
    parameter = sampling_settings.canonical(word.removeprefix("/"))
    if parameter in sampling_settings.names():
        return UsageError(
            f"unknown command {quoted(word)}; to show {parameter} or change it: /set {parameter}"
            " VALUE"
        )
    names = [*(command.name for command in COMMANDS), *_ALIASES] if word != "/" else []
    message = "; to send a message that begins with a slash, put a space before it"
    return UsageError(
        f"unknown command {quoted(word)}{did_you_mean(word, names)}; /help lists the commands"
        f"{message if was_sent else ''}"
    )


def _exit(ctx: CommandContext, _argument: str) -> None:
    ctx.leaving = True


_MANY_LINES = ('""" ... """', "a message of several lines")
_SLASH = ("Space /", "a message that begins with a slash")
_STOP = ("Ctrl-C", "stop the answer and keep its text so far; twice within a second: quit")
_QUIT = ("Ctrl-D", "quit")
PLAIN_KEYS = (_MANY_LINES, _SLASH, _STOP, _QUIT)
KEYS = (
    ("Alt-Enter, Ctrl-J", "start a new line"),
    _MANY_LINES,
    _SLASH,
    ("Tab", "complete a command, a file name or the name of a chat"),
    ("Ctrl-R", "search earlier messages, also those of other chats"),
    ("Ctrl-G", "write the message in $EDITOR"),
    _STOP,
    _QUIT,
)
COMMANDS = (
    Command(
        "/help",
        "[COMMAND]",
        "list the commands, or explain one, or the keys: /help keys",
        _help,
        "command",
        early=True,
    ),
    Command("/exit", "", "quit; a saved chat can be continued later", _exit, early=True),
    Command("/regen", "", "answer the last message again", turns.regenerate),
    Command("/continue", "", "continue an answer that was stopped or cut off", turns.continue_),
    Command(
        "/edit",
        "[TEXT]",
        "edit the last message in $EDITOR, or replace it by TEXT",
        turns.edit,
        "text",
    ),
    Command("/undo", "[N]", "remove the last turn (or N turns), or an attached file", turns.undo),
    Command("/clear", "", "remove all turns of this chat", turns.clear),
    Command(
        "/read",
        "FILE ...",
        'attach text files to the next message: a.md *.py "b c.md"',
        turns.read,
        "path",
    ),
    Command(
        "/system", "[TEXT]", "show or set the system text (none removes it)", info.system, "text"
    ),
    Command(
        "/set",
        "[NAME VALUE]",
        "show or set the sampling parameters; also NAME=VALUE ...",
        info.set_,
        "parameter",
    ),
    Command("/show", "", "show the model, the chat's file and its settings", info.show),
    Command("/stats", "", "show tokens and speed of the last answer, and totals", info.stats),
    Command(
        "/tokens",
        "[TEXT]",
        "show the tokens of a text, or how many the chat has",
        info.tokens,
        "text",
    ),
    Command("/context", "", "show how full the context is", info.context),
    Command("/model", "[MODEL]", "show the model, or continue with another", info.model, "model"),
    Command("/sessions", "", "list the saved chats", sessions.sessions, early=True),
    Command("/new", "[NAME]", "start another chat; a saved one stays saved", sessions.new),
    Command("/load", "NAME", "continue a saved chat", sessions.load, "session"),
    Command("/save", "NAME", "save this chat, or a copy of it, under a name", sessions.save),
    Command("/rename", "NAME", "rename this chat", sessions.rename),
    Command("/delete", "[NAME]", "delete a saved chat, or this one", sessions.delete, "session"),
    Command("/export", "[FILE]", "write the chat to a .md or .json file", export.export, "path"),
    Command("/copy", "[code]", "copy the last answer or its last code block", export.copy, "copy"),
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
_LEAVE, _HELP = "to leave, type /exit or press Ctrl-D", "to list the commands, type /help"
# Words that people type to leave or to get help, alone on a line.
_MEANT = {
    **dict.fromkeys(("exit", "quit", "exit()", "quit()", ":q", ":q!", ":quit", ":wq"), _LEAVE),
    **dict.fromkeys(("help", "help()", ":help"), _HELP),
}


def named(word: str) -> Command | None:
    """The command with this name or alias; None if there is none."""
    name = _ALIASES.get(word, word)
    return next((command for command in COMMANDS if command.name == name), None)


def is_command(line: str) -> bool:
    """Whether a message is a command: it begins with a slash.

    A message of several lines is one only if the command takes a text.
    """
    if not line.startswith("/"):
        return False
    if "\n" not in line.strip():
        return True
    command = named(line.split()[0])
    return command is not None and command.takes == "text"


def run(ctx: CommandContext, line: str) -> None:
    """Run a command line, waiting for the model if needed. Raises EdgesppoError."""
    word, *more = line.strip().split(None, 1)
    argument = unquoted(more[0]) if more else ""
    command = named(word)
    if command is None:
        raise _unknown(word)
    if argument and not command.usage:
        raise UsageError(
            f"{word} takes no argument, not {quoted(argument)}; type {word} alone,"
            " or put a space before it to send the line as a message"
        )
    if not command.early:
        ctx.wait_for_model()
    command.run(ctx, argument.strip())


def hint(line: str) -> str | None:
    """What to type instead of a word that is meant as a command ("exit"); None for a message.

    With a space before it the word is a message.
    """
    means = _MEANT.get(line.rstrip().rstrip(".;").casefold())
    return f"({means}; to send this word, put a space before it)" if means else None
