"""The page of all commands, from click's own description of them."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import click

from edgesppo.cli import COMMANDS, main
from edgesppo.cli.help_format import Headed

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Commands

Every command and its options, as `edgesppo COMMAND --help` shows them. How they are used is in the
other pages; MODEL, exit codes and pipes are explained in [run](run.md).
"""
_OPTIONS = "Options"
# Headings whose options several commands share: listed once, at the end.
_SHARED = ("Loading the model", "Sampling")
_WIDE = 10_000  # columns, so that click wraps nothing


def page() -> str:
    """The page's Markdown."""
    listed = [f"- `edgesppo {name}`: {text}" for name, (_, text) in COMMANDS.items()]
    parts = [_HEAD, "\n".join([*listed, ""])]
    shared: dict[str, list[str]] = {}
    for words, command, ctx in _commands():
        parts.append("\n".join(_section(words, command, ctx, shared)))
    for heading, rows in shared.items():
        parts.append("\n".join([f"## {heading}", "", *rows, ""]))
    common = [_row(option, click.Context(main)) for option in main.params]
    parts.append("\n".join(["## Options of every command", "", *filter(None, common), ""]))
    return "\n".join(parts)


def _commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Each command with its words; those of a group come after it."""
    root = click.Context(main, info_name="edgesppo", terminal_width=_WIDE)
    for name in COMMANDS:
        command = main.get_command(root, name)
        assert command is not None
        ctx = click.Context(command, root, info_name=name, terminal_width=_WIDE)
        yield name, command, ctx
        if isinstance(command, click.Group):
            for part in command.list_commands(ctx):
                inner = command.get_command(ctx, part)
                assert inner is not None
                below = click.Context(inner, ctx, info_name=part, terminal_width=_WIDE)
                yield f"{name} {part}", inner, below


def _section(
    words: str, command: click.Command, ctx: click.Context, shared: dict[str, list[str]]
) -> Iterator[str]:
    yield f"## edgesppo {words}"
    yield ""
    yield f"`{' '.join(['edgesppo', words, *command.collect_usage_pieces(ctx)])}`"
    yield ""
    yield _description(command)
    yield ""
    groups = _groups(command, ctx)
    below = [h for h in groups if h in _SHARED and shared.setdefault(h, groups[h]) == groups[h]]
    own = {heading: rows for heading, rows in groups.items() if heading not in below}
    for heading, rows in own.items():
        yield from ([f"**{heading}**", ""] if len(own) > 1 else [])
        yield from rows
        yield ""
    if below:
        yield f"And those that are listed below: {', '.join(below).lower()}."
        yield ""


def _description(command: click.Command) -> str:
    """The command's docstring; what click is told not to wrap is a block of code."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(
        "\n".join(f"    {line}" for line in lines[1:]) if lines[0] == "\b" else "\n".join(lines)
        for lines in (paragraph.split("\n") for paragraph in paragraphs)
    )


def _groups(command: click.Command, ctx: click.Context) -> dict[str, list[str]]:
    """Heading -> a row for each option, without those that every command has."""
    common = {option.name for option in main.params}
    groups: dict[str, list[str]] = {}
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in common:
            heading = option.heading if isinstance(option, Headed) else _OPTIONS
            if row := _row(option, ctx):
                groups.setdefault(heading, []).append(row)
    return groups


def _row(option: click.Parameter, ctx: click.Context) -> str:
    record = option.get_help_record(ctx)
    if record is None:
        return ""
    names, text = record
    return f"- `{names}`: {re.sub('  +', '  ', text).replace('  ', ' ')}"
