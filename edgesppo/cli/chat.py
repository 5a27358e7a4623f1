"""`edgesppo chat` and `edgesppo try`: start the REPL, or answer the lines of standard input."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.completion import complete_models
from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.loading import is_explicit, open_model, open_reporting, open_with_meters
from edgesppo.cli.options import given_model_options, json_option, model_options, sampling_options
from edgesppo.cli.output import is_interactive, say
from edgesppo.cli.session_options import choose_model_for, held_session, session_options
from edgesppo.errors import ModelNotFound, UsageError
from edgesppo.store import locate, user_state
from edgesppo.system.shell import shell_word
from edgesppo.terminal.format import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.loaded_model import LoadedModel
    from edgesppo.repl import ModelSource, Setup
    from edgesppo.sessions.session import Session

TRY_QUESTION = "Who are you?"
_IN_CHAT = "/model NAME takes one of these, or the path of a GGUF file or of a checkpoint folder"
_NO_NAME = "--resume takes no name; to resume a chat by its name: edgesppo chat --session {}"
_plain_option = click.option(
    "--plain",
    is_flag=True,
    help="No colours, no status line, nothing redrawn: for screen readers and simple terminals.",
)


class _ChatCommand(HeadedCommand):
    """Says what to type where --resume was given a name, which it does not take."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments as click does; its error then says where a chat's name goes."""
        given = [*args]
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "--resume" in given and "unexpected extra argument" in error.message:
                error = click.UsageError(f"{error.message}; {_NO_NAME.format('NAME')}", ctx)
            raise error from None


@click.command(name="chat", cls=_ChatCommand)
@click.argument("model", required=False, shell_complete=complete_models)
@click.option(
    "--system",
    help="System prompt; merged into the first message, as Gemma-2 has no system role.",
)
@session_options
@click.option("--resume", is_flag=True, help="Resume the chat that was used last.")
@click.option(
    "--url",
    help="Chat with the model of the `edgesppo serve` at this URL, instead of loading one."
    " [its API key: env EDGESPPO_API_KEY]",
)
@_plain_option
@model_options
@sampling_options
def chat_command(
    model: str | None,
    url: str | None,
    system: str | None,
    session: str | None,
    snapshots: int,
    resume: bool,
    plain: bool,
    loading: dict[str, Any],
    sampling: dict[str, Any],
) -> None:
    """Chat with a model.

    MODEL is a name, a GGUF file or a checkpoint folder. The default is the model used last, else
    sppo-iter3 if it is on this machine, else the demo.

    On a terminal the chat is saved turn by turn, under today's date or the name given with
    --session. Without a terminal, each line of standard input is one message (several lines
    between triple quotes are one, too), and the chat is saved only with --session or --resume; the
    exit code is 1 if a message failed.
    """
    if url is not None and model is not None:
        raise UsageError(f"--url {url} has its own model; leave out {model!r}")
    if url is not None and (given := given_model_options()):
        raise UsageError(f"--url {url} has loaded its model; leave out {' and '.join(given)}")
    with held_session(session, resume=resume, unnamed=is_interactive()) as held:
        try:
            if url is not None:
                source = _served(url)
            else:
                source = _source(choose_model_for(model, held), loading)
        except ModelNotFound as error:
            if not resume or model is None:
                raise
            raise ModelNotFound(f"{error}; {_NO_NAME.format(shell_word(model))}") from None
        options = {"system": system, **sampling}
        _talk(_setup(source, loading, options, held, snapshots), plain=plain)


def _served(url: str) -> ModelSource:
    """The model of the server at a URL."""
    from edgesppo.repl import ModelSource

    def connect(_report: object) -> LoadedModel:
        from edgesppo.remote import model
        from edgesppo.server import api_keys

        return model.connect(url, api_keys.to_send())

    return ModelSource(url, connect)


def _source(found: locate.Found, loading: dict[str, Any]) -> ModelSource:
    """A model on this machine; once loaded, one named on the command line is remembered."""
    from edgesppo.repl import ModelSource

    load = open_reporting if is_interactive() else open_with_meters
    is_named = is_explicit(found)

    def load_and_remember(report: Callable[[str, float], None]) -> LoadedModel:
        loaded = load(loading, found, report)
        if is_named:
            user_state.set_last(locate.argument_for(found))
        return loaded

    return ModelSource(found.name, load_and_remember)


def _setup(
    source: ModelSource,
    loading: dict[str, Any],
    options: dict[str, Any],
    held: Session | None = None,
    snapshots: int = 0,
) -> Setup:
    from edgesppo.repl import Setup
    from edgesppo.sessions.folder import Sessions

    def find(name: str) -> ModelSource:
        return _source(locate.find(name, advice=_IN_CHAT), loading)

    return Setup(source, find, Sessions(), held, snapshots, options)


def _talk(setup: Setup, *, plain: bool) -> None:
    from edgesppo import repl

    if is_interactive():
        repl.interactive(setup, plain=plain)
    elif not repl.from_lines(setup, sys.stdin or ()):
        sys.exit(1)


@click.command(name="try", cls=HeadedCommand)
@json_option
@_plain_option
@model_options
@sampling_options
def try_command(
    as_json: bool, plain: bool, loading: dict[str, Any], sampling: dict[str, Any]
) -> None:
    """Convert the shipped demo model, then chat with it.

    Without a terminal, asks it one question and prints the answer.
    """
    from edgesppo.cli.answer import Form, answer

    if is_interactive() and not as_json:
        source = _source(locate.demo(), loading)
        _talk(_setup(source, loading, sampling), plain=plain)
        return
    with open_model(locate.demo(), loading) as loaded:
        say(describe(loaded))
        say(f"> {TRY_QUESTION}")
        form = Form.JSON if as_json else Form.TEXT
        answer(loaded, loaded.chat(**sampling), TRY_QUESTION, form=form)
