"""What to type instead, added to click's own errors of usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 3  # commands that one message names


def with_hint(
    error: click.ClickException, commands: Iterable[click.Command]
) -> click.ClickException:
    """The error; it also says whose option an unknown one is, or which option takes a text."""
    if more := _hint(error, commands):
        vars(error).update(message=error.message.rstrip(".") + more, possibilities=None)
    return error


def _hint(error: click.ClickException, commands: Iterable[click.Command]) -> str:
    if isinstance(error, click.NoSuchOption):
        option = error.option_name
        owners = [str(command.name) for command in commands if option in _options(command)]
        return f"; it is an option of {', '.join(owners[:_MOST])}" if owners else ""
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return ""
    is_extra = "unexpected extra argument" in error.message
    takes_text = is_extra and "--text" in _options(error.ctx.command)
    return "; a text is given with --text FILE" if takes_text else ""


def _options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}
