"""The command line: the list of commands, the options that all of them share, and error output.

Each command is a module of this package, imported only when it runs. A command parses options and
prints; what it does is implemented in other rooms.
Exit codes: 0 done, 1 failed with a message, 2 usage error, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from edgesppo._version import __version__
from edgesppo.cli.standard_streams import (
    discard_unwritten_output,
    fill_closed_streams,
    write_any_character,
)
from edgesppo.cli.usage_hints import with_hint
from edgesppo.errors import EdgesppoError, OutOfMemory
from edgesppo.system import memory_guard, notices
from edgesppo.system.sanitize import one_line, printable
from edgesppo.system.signals import Terminated
from edgesppo.system.suggest import SOMEWHAT_SIMILAR, nearest
from edgesppo.terminal.output import is_broken_pipe, quieted, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# name -> (module, summary for --help)
COMMANDS = {
    "try": ("edgesppo.cli.chat", "Convert the shipped demo model and chat with it."),
    "chat": ("edgesppo.cli.chat", "Chat with a model."),
    "run": ("edgesppo.cli.run", "Answer one prompt."),
    "serve": ("edgesppo.cli.serve", "Serve a model to many clients, and a chat page."),
    "batch": ("edgesppo.cli.batch", "Answer many prompts from a file, many at once."),
    "convert": (
        "edgesppo.cli.convert",
        "Convert a checkpoint (a folder, or from the hub) to a GGUF file.",
    ),
    "show": ("edgesppo.cli.show", "Show a model file's metadata."),
    "card": ("edgesppo.cli.card", "Write the model card of a GGUF file to publish."),
    "pull": ("edgesppo.cli.pull", "Download a model from the hub, or resume a download."),
    "lock": ("edgesppo.cli.lock", "Pin a model of the hub to its current commit."),
    "list": ("edgesppo.cli.list", "List the models, and which are on this machine."),
    "path": ("edgesppo.cli.path", "Print the path of a model."),
    "import": ("edgesppo.cli.import_", "Give a model file of your own a name."),
    "verify": ("edgesppo.cli.verify", "Check the files on this machine for damage."),
    "rm": ("edgesppo.cli.rm", "Remove a model's files."),
    "gc": ("edgesppo.cli.gc", "Remove files that nothing uses any more."),
    "build": ("edgesppo.cli.build", "Compile llama.cpp anew for this machine."),
    "doctor": ("edgesppo.cli.doctor", "Check this machine for problems."),
    "plan": ("edgesppo.cli.plan", "Show how much memory a model needs, and its settings."),
    "bench": ("edgesppo.cli.bench", "Measure how fast a model runs here, and why."),
    "calibrate": ("edgesppo.cli.calibrate", "Collect an importance matrix for convert --imatrix."),
    "eval": ("edgesppo.cli.eval", "Measure perplexity, divergence, AlpacaEval's answers."),
    "tokenize": ("edgesppo.cli.tokenize", "Show the token ids of a text."),
    "help": ("edgesppo.cli.help", "Show the manual, by topic."),
}
INTERRUPTED = 130
JSON_KEY = "edgesppo.json"


class CliError(click.ClickException):
    """Prints one of our errors as one line, or as one JSON object."""

    def __init__(self, error: EdgesppoError, *, as_json: bool) -> None:
        super().__init__(one_line(str(error)))
        self.kind = type(error).__name__
        self.as_json = as_json

    def show(self, file: Any = None) -> None:
        """Write JSON to standard output, or a line to standard error; also if the former fails."""
        if self.as_json:
            with contextlib.suppress(OSError):
                click.echo(json.dumps({"error": {"type": self.kind, "message": self.message}}))
                return
        with contextlib.suppress(OSError):
            click.echo(f"edgesppo: {self.message}", err=True, file=file)


def _set_environment(variable: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """An option callback that sets an environment variable while the command runs."""

    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value:
            ctx.meta[variable] = str(value)  # for shell completion, when the context is closed
            ctx.with_resource(environment(variable, str(value)))

    return callback


@contextlib.contextmanager
def environment(variable: str, value: str) -> Iterator[None]:
    """Set an environment variable in the block."""
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
        callback=_set_environment("EDGESPPO_LOCK"),
        help="The project's models.lock; its entries take precedence. [env: EDGESPPO_LOCK]",
    )


def _offline_option() -> click.Option:
    return click.Option(
        ["--offline", "offline"],
        flag_value="1",
        default=None,
        expose_value=False,
        is_eager=True,
        callback=_set_environment("EDGESPPO_OFFLINE"),
        help="Connect neither to the hub nor to a package index. [env: EDGESPPO_OFFLINE,"
        " HF_HUB_OFFLINE]",
    )


def _quiet_option() -> click.Option:
    def callback(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            ctx.with_resource(quieted())

    return click.Option(
        ["-q", "--quiet", "quiet"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=callback,
        help="Print nothing on standard error but errors and questions.",
    )


def _common_options() -> list[click.Parameter]:
    return [_lock_option(), _offline_option(), _quiet_option()]


class _LazyGroup(click.Group):
    """A command group that imports each command when it is used."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        fill_closed_streams()
        write_any_character()
        try:
            with notices.collected(_note):
                try:
                    return self._run(*args, **kwargs)
                finally:
                    for line in notices.take():
                        _note(line)
        finally:
            discard_unwritten_output()

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except (OSError, MemoryError) as error:  # at --help or --version, before any command
            ours = _ours(error)
            if type(ours) is EdgesppoError:
                ours = EdgesppoError(f"standard output cannot be written: {ours}")
            CliError(ours, as_json=False).show()
            sys.exit(1)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Make the context as click does, but with errors that are safe to show."""
        try:
            return super().make_context(*args, **kwargs)
        except click.ClickException as error:
            raise _made_safe(error) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands and options that begin so; imports none of the commands."""
        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        parts = command.commands.values() if isinstance(command, click.Group) else ()
        for part in (command, *parts):
            if not any(option.name == "offline" for option in part.params):
                part.params += _common_options()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:  # as for shell completion
            meant = nearest(args[0], COMMANDS, SOMEWHAT_SIMILAR)
            more = f"did you mean {meant}?" if meant else "edgesppo --help lists them"
            ctx.fail(f"no such command: {args[0]!r}; {more}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgesppoError as error:
            raise CliError(error, as_json=ctx.meta.get(JSON_KEY, False)) from None
        except (KeyboardInterrupt, Terminated) as stopped:
            ctx.exit(_tell_how_to_resume(stopped))
        except click.Abort as abort:  # at a question: Ctrl-C, or the end of standard input
            if not isinstance(abort.__context__, KeyboardInterrupt):
                raise
            say("\nedgesppo: interrupted; this counts as no", matters=True)
            ctx.exit(INTERRUPTED)
        except click.ClickException as error:
            known = (self.get_command(ctx, name) for name in COMMANDS)
            raise _made_safe(with_hint(error, filter(None, known))) from None
        except click.exceptions.Exit:
            raise
        except Exception as error:
            if is_broken_pipe(error):  # click exits quietly
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
            if os.environ.get("EDGESPPO_DEBUG") and not isinstance(error, OSError):
                raise
            raise CliError(_ours(error), as_json=ctx.meta.get(JSON_KEY, False)) from None


def _tell_how_to_resume(stopped: KeyboardInterrupt | Terminated) -> int:
    """Print the text of an interruption, if it has one; returns the exit code."""
    if stopped.args:
        say(f"\nedgesppo: {stopped}", matters=True)
    elif isinstance(stopped, KeyboardInterrupt):
        say("")  # after the ^C of the terminal
    return stopped.exit_code if isinstance(stopped, Terminated) else INTERRUPTED


def _note(line: str) -> None:
    say(f"edgesppo: {line}")


def _ours(error: Exception) -> EdgesppoError:
    """One of our errors for any other."""
    if shortage := memory_guard.shortage(error):
        return OutOfMemory(shortage)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return EdgesppoError(f"{where}{error.strerror or error}")
    return EdgesppoError(
        f"unexpected {type(error).__name__}: {error} (a bug in edgesppo; set "
        "EDGESPPO_DEBUG=1 to see where)"
    )


def _made_safe(error: click.ClickException) -> click.ClickException:
    """The error again; its message may quote what a terminal must not obey."""
    vars(error)["message"] = printable(error.message)
    return error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgesppo")
def main() -> None:
    """Run Gemma-2-9B-It-SPPO on a machine you own.

    To get started: edgesppo try. To read on: edgesppo help
    """


main.params += _common_options()
