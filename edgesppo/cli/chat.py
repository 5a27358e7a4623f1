"""Owns `edgesppo chat` and `edgesppo try`."""

from __future__ import annotations

import sys
from typing import Any

import click

from edgesppo import store
from edgesppo.cli.common import (
    chosen,
    describe,
    is_interactive,
    json_option,
    model_options,
    opened,
    sampling_options,
    say,
)

TRY_QUESTION = "Who are you?"


@click.command(name="chat")
@click.argument("model", required=False)
@click.option("--system", help="A system text, merged into the first message as Gemma-2 has it.")
@model_options
@sampling_options
def chat_command(
    model: str | None, system: str | None, loading: dict[str, Any], sampling: dict[str, Any]
) -> None:
    """Chat with MODEL: a name, a GGUF file or a checkpoint folder.

    Away from a terminal, every line of standard input is one message; exits with 1 if one failed.
    """
    from edgesppo import repl

    with opened(chosen(model), loading) as loaded:
        say(describe(loaded))
        chat = loaded.chat(system=system, **sampling)
        if is_interactive():
            repl.interactive(chat)
        elif not repl.from_lines(chat, sys.stdin or ()):
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
