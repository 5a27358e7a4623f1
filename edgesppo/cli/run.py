"""`edgesppo run`: answer one prompt on standard output."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import Any

import click

from edgesppo.cli.answer import Form, answer
from edgesppo.cli.completion import complete_files, complete_first_model
from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.loading import open_model
from edgesppo.cli.options import (
    json_lines_option,
    json_option,
    model_options,
    read_schema,
    sampling_options,
)
from edgesppo.cli.output import has_terminal, say
from edgesppo.cli.session_options import (
    choose_model_for,
    held_session,
    session_chat,
    session_options,
)
from edgesppo.errors import UsageError
from edgesppo.lockfile import layers
from edgesppo.system.sanitize import printable
from edgesppo.system.signals import raise_on_termination
from edgesppo.system.text_input import read_stream, read_text

_STDIN = "-"


@click.command(name="run", cls=HeadedCommand)
@click.argument("words", nargs=-1, metavar="[MODEL] [PROMPT]", shell_complete=complete_first_model)
@click.option(
    "--system", help="System prompt; merged into the prompt, as Gemma-2 has no system role."
)
@click.option(
    "--schema",
    "schema_file",
    metavar="FILE",
    shell_complete=complete_files,
    help="Make the answer valid JSON for the JSON Schema in FILE; printed when it is complete.",
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    shell_complete=complete_files,
    help="Add a text file to the prompt, after PROMPT and before piped text; repeatable. - stands"
    " for the piped text.",
)
@session_options
@json_option
@json_lines_option
@model_options
@sampling_options
def run_command(
    words: tuple[str, ...],
    system: str | None,
    schema_file: str | None,
    files: tuple[str, ...],
    session: str | None,
    snapshots: int,
    as_json: bool,
    as_lines: bool,
    loading: dict[str, Any],
    sampling: dict[str, Any],
) -> None:
    """Answer one prompt.

    MODEL is a name, a GGUF file or a checkpoint folder. The default is the model used last, else
    sppo-iter3 if it is on this machine, else the demo.

    The prompt consists of PROMPT, the files given with -f and piped text, in this order. A single
    argument is MODEL if it is a name in models.lock or looks like a path, else PROMPT. In a shell
    loop, redirect standard input from /dev/null, or the command consumes the loop's input. With
    --session the prompt is the next turn of that chat; otherwise nothing is saved.

    With --json-lines every line is one JSON object. The "text" of all of them, joined, is the
    answer. The last has the keys of --json, too; if the command fails it is {"error": ...} instead.
    """
    if as_json and as_lines:
        raise click.UsageError("--json prints one object, --json-lines many; give only one")
    model, prompt = _model_and_prompt(words, files)
    wanted = None if schema_file is None else read_schema(schema_file)
    options = {"system": system, **sampling}
    form = Form.LINES if as_lines else Form.JSON if as_json else Form.TEXT
    with (
        raise_on_termination(),
        held_session(session) as held,
        open_model(choose_model_for(model, held), loading) as loaded,
    ):
        if held is None:
            answer(loaded, loaded.chat(**options), prompt, form=form, wanted=wanted)
            return
        with session_chat(loaded, held, snapshots=snapshots, **options) as saved:
            answer(loaded, saved.chat, prompt, form=form, wanted=wanted)


def _model_and_prompt(words: tuple[str, ...], files: tuple[str, ...]) -> tuple[str | None, str]:
    """Split the arguments into MODEL and PROMPT, and complete the prompt with files and piped text.

    A single argument is MODEL only if it is a model's name or looks like a path.
    """
    if len(words) > 2:
        raise click.UsageError(
            f"{len(words)} arguments given, expected at most MODEL and PROMPT; put the prompt in"
            " quotes"
        )
    alone = len(words) == 1 and _names_a_model(words[0])
    model = words[0] if alone or len(words) == 2 else None
    prompts = words[1:] if model is not None else words
    if files.count(_STDIN) > 1:
        raise click.UsageError("-f - is given more than once, but standard input can be read once")
    read = [(_piped() if file == _STDIN else read_text(file)).strip("\n") for file in files]
    if _STDIN not in files and not has_terminal(sys.stdin):
        read.append(_piped().strip("\n"))
        if not read[-1] and _was_piped():
            say("edgesppo: the piped input is empty")
    prompt = "\n\n".join(part for part in (*prompts, *read) if part)
    if not prompt.strip():
        if files and files != (_STDIN,):
            raise click.UsageError(f"no prompt: {', '.join(map(printable, files))}: nothing in it")
        taken = "" if model is None else f" ({printable(model)} was taken for the model's name)"
        raise click.UsageError(
            f"no prompt{taken}: give one as an argument, with -f, or through a pipe"
        )
    return model, prompt


def _names_a_model(word: str) -> bool:
    """Whether an argument is a name in models.lock or looks like a path; files are not looked up.

    Raises click.UsageError for a word that is almost a model's name, as that is likely a typo.
    """
    lock = layers.read()
    if word in lock.models:
        return True
    if any(letter.isspace() for letter in word):
        return False
    if word.endswith(".gguf") or "/" in word or os.sep in word:
        return True
    meant = lock.nearest(word)
    if meant is not None:
        raise click.UsageError(
            f"{printable(word)} is not the name of a model; did you mean {meant}? "
            "To use it as a prompt, name a model before it"
        )
    return False


def _piped() -> str:
    """Read standard input as text; empty if it is closed. Raises UsageError if unreadable."""
    if sys.stdin is None:
        return ""
    try:
        return read_stream(sys.stdin.buffer, "standard input")
    except OSError as error:
        raise UsageError(f"standard input: cannot be read: {error.strerror or error}") from None


def _was_piped() -> bool:
    """Whether standard input is a pipe or a regular file; /dev/null is neither."""
    if sys.stdin is None:
        return False
    with contextlib.suppress(OSError, ValueError):
        mode = os.fstat(sys.stdin.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    return False
