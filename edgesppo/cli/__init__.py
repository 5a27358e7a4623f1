"""Owns the command line's frame: which commands there are, and how an error leaves.

Commands are imported only when they are run; the product's logic is elsewhere.
Exit codes: 0 done, 1 failed with a message, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from edgesppo._version import __version__
from edgesppo.errors import EdgesppoError
from edgesppo.system.sanitize import one_line
from edgesppo.terminal.output import aside
from edgesppo.terminal.suggest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# name -> (module, what --help says of it)
COMMANDS = {
    "try": ("edgesppo.cli.chat", "Convert the shipped demo model and chat with it."),
    "chat": ("edgesppo.cli.chat", "Chat with a model."),
    "run": ("edgesppo.cli.run", "Answer one prompt."),
    "convert": ("edgesppo.cli.convert", "Convert a checkpoint folder to a GGUF file."),
    "show": ("edgesppo.cli.show", "Show what a model file says of itself."),
    "pull": ("edgesppo.cli.pull", "Get a model from the hub, checked, resumed."),
    "lock": ("edgesppo.cli.lock", "Pin a model of the hub to what it is now."),
    "list": ("edgesppo.cli.list", "List the models, and which are here."),
    "path": ("edgesppo.cli.path", "Print where a model is."),
    "import": ("edgesppo.cli.import_", "Give a model file of yours a name."),
    "verify": ("edgesppo.cli.verify", "Hash again what is here."),
    "rm": ("edgesppo.cli.rm", "Remove a model's files."),
    "gc": ("edgesppo.cli.gc", "Remove what nothing uses any more."),
    "doctor": ("edgesppo.cli.doctor", "Look for what is wrong on this machine."),
    "plan": ("edgesppo.cli.plan", "Show what a model will take: memory, threads."),
    "bench": ("edgesppo.cli.bench", "Show how fast a model runs here, and why."),
    "tokenize": ("edgesppo.cli.tokenize", "Show the token ids of a text."),
}
INTERRUPTED = 130
JSON_KEY = "edgesppo.json"


class CliError(click.ClickException):
    """One of our errors on its way to the terminal: one line, or one JSON object."""

    def __init__(self, error: EdgesppoError, *, as_json: bool) -> None:
        super().__init__(one_line(str(error)))
        self.kind = type(error).__name__
        self.as_json = as_json

    def show(self, file: Any = None) -> None:
        """Write it: JSON to standard output; a line to standard error, also where that fails."""
        if self.as_json:
            with contextlib.suppress(OSError):
                click.echo(json.dumps({"error": {"type": self.kind, "message": self.message}}))
                return
        with contextlib.suppress(OSError):
            click.echo(f"edgesppo: {self.message}", err=True, file=file)


def _set(variable: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that sets an environment variable for as long as the command runs."""

    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value:
            ctx.with_resource(_environment(variable, str(value)))

    return callback


@contextlib.contextmanager
def _environment(variable: str, value: str) -> Iterator[None]:
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def _lock_option() -> click.Option:
    return click.Option(
        ["--lock", "lock"],
        metavar="FILE",
        expose_value=False,
        is_eager=True,
        callback=_set("EDGESPPO_LOCK"),
        help="A project's own models.lock; its entries win. [env: EDGESPPO_LOCK]",
    )


def _offline_option() -> click.Option:
    return click.Option(
        ["--offline", "offline"],
        flag_value="1",
        default=None,
        expose_value=False,
        is_eager=True,
        callback=_set("EDGESPPO_OFFLINE"),
        help="Open no connection. [env: EDGESPPO_OFFLINE, HF_HUB_OFFLINE]",
    )


def _fill_closed_streams() -> None:
    """A closed standard error takes what is said nowhere; a closed output refuses what is written.

    Left closed, its number would go to the next file that is opened: the model's.
    """
    modes = {"stdin": os.O_RDONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}
    for descriptor, (name, mode) in enumerate(modes.items()):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(descriptor)
                continue
            os.open(os.devnull, mode)  # the lowest number that is free: this one
            if name != "stdin":
                raw = io.FileIO(descriptor, "w", closefd=False)  # what fails is not tried again
                setattr(sys, name, io.TextIOWrapper(raw, "utf-8", write_through=True))


def _let_go_of_what_was_not_written() -> None:
    """Python would try to write it again at its end, and complain; we did where it mattered."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


class _LazyGroup(click.Group):
    """A group whose commands are imported when asked for."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _fill_closed_streams()
        try:
            return super().main(*args, **kwargs)
        finally:
            _let_go_of_what_was_not_written()

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        if not any(option.name == "offline" for option in command.params):
            command.params += [_lock_option(), _offline_option()]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        meant = None if args[0] in COMMANDS else nearest(args[0], COMMANDS)
        if meant is not None:
            ctx.fail(f"no such command: {args[0]!r}; did you mean {meant}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgesppoError as error:
            raise CliError(error, as_json=ctx.meta.get(JSON_KEY, False)) from None
        except KeyboardInterrupt as stopped:
            # One that carries a text says how to go on.
            aside(f"\nedgesppo: {stopped}" if stopped.args else "")
            ctx.exit(INTERRUPTED)
        except click.Abort as abort:  # at a question: Ctrl-C, or the end of what could be read
            if not isinstance(abort.__context__, KeyboardInterrupt):
                raise
            aside("\nedgesppo: stopped at the question; the answer was taken as no")
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly when nobody reads any more
            raise CliError(_from_system(error), as_json=ctx.meta.get(JSON_KEY, False)) from None
        except Exception as error:
            if os.environ.get("EDGESPPO_DEBUG"):
                raise
            unexpected = EdgesppoError(
                f"unexpected {type(error).__name__}: {error} (a defect of edgesppo; "
                "EDGESPPO_DEBUG=1 shows where)"
            )
            raise CliError(unexpected, as_json=ctx.meta.get(JSON_KEY, False)) from None


def _from_system(error: OSError) -> EdgesppoError:
    where = f"{error.filename}: " if error.filename else ""
    return EdgesppoError(f"{where}{error.strerror or error}")


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgesppo")
def main() -> None:
    """Run Gemma-2-9B-It-SPPO on a machine you own.

    First steps: edgesppo try
    """


main.params += [_lock_option(), _offline_option()]
