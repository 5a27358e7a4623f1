"""`edgesppo help`: the pages of the manual, on a terminal or as plain text."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from edgesppo.cli import COMMANDS, main
from edgesppo.cli.output import has_terminal
from edgesppo.help import pages

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM = "edgesppo"


def complete_topics(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The pages, and the commands without one, that begin so."""
    found = [CompletionItem(topic.name, help=topic.summary) for topic in pages.topics()]
    named = {item.value for item in found}
    found += [
        CompletionItem(name, help=COMMANDS[name][1]) for name in COMMANDS if name not in named
    ]
    return [item for item in found if item.value.startswith(incomplete)]


@click.command(name="help")
@click.argument("topic", nargs=-1, metavar="[TOPIC]", shell_complete=complete_topics)
def help_command(topic: tuple[str, ...]) -> None:
    """Show a page of the manual; without TOPIC, the list of pages.

    TOPIC is the name of a page, of a command, or of an example, such as script.py. On a terminal a
    long page is shown by your pager; elsewhere it is printed as it was written, in Markdown.
    """
    if not topic:
        _show(pages.index())
    elif (text := pages.page(" ".join(topic))) is not None:
        _show(text)
    elif (text := pages.example(" ".join(topic))) is not None:
        click.echo(text, nl=False)
    elif (text := _command_help(topic)) is not None:
        click.echo(text)
    else:
        raise pages.unknown(" ".join(topic), COMMANDS)


def _command_help(words: Sequence[str]) -> str | None:
    """What `--help` says of a command, or of a command of a group; None if there is none."""
    command: click.Command = main
    ctx = click.Context(main, info_name=_PROGRAM)
    for word in words:
        found = command.get_command(ctx, word) if isinstance(command, click.Group) else None
        if found is None:
            return None
        command, ctx = found, click.Context(found, ctx, info_name=word)
    return command.get_help(ctx)


def _show(text: str) -> None:
    """Show a page: drawn on a terminal, by a pager if it is longer than that; else as it is."""
    from edgesppo.terminal import document, markdown
    from edgesppo.terminal.screen import Screen

    if not has_terminal(sys.stdout) or os.environ.get("TERM") == "dumb":
        click.echo(text, nl=False)
        return
    drawn = text
    screen = Screen(redraws=False, styled=not os.environ.get("NO_COLOR"))
    if screen.styled:
        symbols = markdown.Symbols() if screen.utf8 else markdown.ASCII
        drawn = "\n".join(document.rows(text, symbols, screen.text_columns)) + "\n"
    if drawn.count("\n") < screen.size.lines:
        click.echo(drawn, nl=False)
    else:
        click.echo_via_pager(drawn.rstrip("\n"))
