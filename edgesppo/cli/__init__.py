"""Owns the command line's frame: which commands there are, and how an error leaves.

Commands are imported only when they are run; the product's logic is elsewhere.
Exit codes: 0 done, 1 failed with a message, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
from typing import Any

import click

from edgesppo import __version__
from edgesppo.errors import EdgesppoError

# name -> (module, what --help says of it)
COMMANDS = {
    "try": ("edgesppo.cli.chat", "Convert the shipped demo model and chat with it."),
    "chat": ("edgesppo.cli.chat", "Chat with a model."),
    "run": ("edgesppo.cli.run", "Answer one prompt."),
    "convert": ("edgesppo.cli.convert", "Convert a checkpoint folder to a GGUF file."),
    "show": ("edgesppo.cli.show", "Show what a model file says of itself."),
    "plan": ("edgesppo.cli.plan", "Show what a model will take: memory, threads."),
    "bench": ("edgesppo.cli.bench", "Show how fast a model runs here, and why."),
    "tokenize": ("edgesppo.cli.tokenize", "Show the token ids of a text."),
}
INTERRUPTED = 130
JSON_KEY = "edgesppo.json"


class CliError(click.ClickException):
    """One of our errors on its way to the terminal: one line, or one JSON object."""

    def __init__(self, error: EdgesppoError, *, as_json: bool) -> None:
        super().__init__(" ".join(str(error).split()))
        self.kind = type(error).__name__
        self.as_json = as_json

    def show(self, file: Any = None) -> None:
        """Write it: JSON to standard output, a line to standard error."""
        if self.as_json:
            click.echo(json.dumps({"error": {"type": self.kind, "message": self.message}}))
        else:
            click.echo(f"edgesppo: {self.message}", err=True, file=file)


class _LazyGroup(click.Group):
    """A group whose commands are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

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
            click.echo(f"\nedgesppo: {stopped}" if stopped.args else "", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
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
