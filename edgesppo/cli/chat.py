"""Owns `edgesppo chat` and `edgesppo try`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from edgesppo import store
from edgesppo.cli.common import (
    describe,
    is_interactive,
    json_option,
    model_options,
    opened,
    sampling_options,
    say,
)
from edgesppo.cli.keeping import chatting, chosen_for, kept, session_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.chat import Chat

TRY_QUESTION = "Who are you?"


@click.command(name="chat")
@click.argument("model", required=False)
@click.option("--system", help="A system text, merged into the first message as Gemma-2 has it.")
@session_options
@click.option("--resume", is_flag=True, help="Go on with the chat that was used last.")
@model_options
@sampling_options
def chat_command(
    model: str | None,
    system: str | None,
    session: str | None,
    snapshots: int,
    resume: bool,
    loading: dict[str, Any],
    sampling: dict[str, Any],
) -> None:
    """Chat with MODEL: a name, a GGUF file or a checkpoint folder.

    On a terminal the chat is saved turn by turn, under its date or the name that --session gives.
    Away from one, every line of standard input is one message, and the chat is saved only with
    --session or --resume; exits with 1 if a message failed.
    """
    with kept(session, resume=resume, unnamed=is_interactive()) as held:
        with opened(chosen_for(model, held), loading) as loaded:
            say(describe(loaded))
            if held is None:
                _talk(loaded.chat(system=system, **sampling), None)
                return
            options = {"system": system, **sampling}
            with chatting(loaded, held, snapshots=snapshots, **options) as saved:
                _talk(saved.chat, saved.record)
        if held.transcript is not None and session is None and is_interactive():
            say(f"Saved as {held.name}; edgesppo chat --resume goes on with it.")


def _talk(chat: Chat, record: Callable[[], None] | None) -> None:
    from edgesppo import repl

    if is_interactive():
        repl.interactive(chat, record)
    elif not repl.from_lines(chat, sys.stdin or (), record):
        sys.exit(1)


@click.command(name="try")
@json_option
@model_options
@sampling_options
def try_command(as_json: bool, loading: dict[str, Any], sampling: dict[str, Any]) -> None:
    """Convert the shipped demo model, then chat with it.

    Away from a terminal, asks it one question and prints the answer.
    """
    from edgesppo import repl
    from edgesppo.cli.run import answer

    with opened(store.demo(), loading) as loaded:
        say(describe(loaded))
        chat = loaded.chat(**sampling)
        if is_interactive() and not as_json:
            repl.interactive(chat)
            return
        say(f"> {TRY_QUESTION}")
        answer(loaded, chat, TRY_QUESTION, as_json=as_json)
