"""`edgesppo run`: answer one prompt on standard output."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli import INTERRUPTED
from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.loading import open_model
from edgesppo.cli.options import json_option, model_options, sampling_options
from edgesppo.cli.output import emit_json, has_terminal, say
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
from edgesppo.terminal.format import speed_line
from edgesppo.terminal.suggest import nearest

if TYPE_CHECKING:
    from edgesppo.api import LoadedModel
    from edgesppo.chat.chat import Chat
    from edgesppo.chat.generation import TokenLogprob
    from edgesppo.chat.structured import AnswerFormat

_STDIN = "-"


@click.command(name="run", cls=HeadedCommand)
@click.argument("words", nargs=-1, metavar="[MODEL] [PROMPT]")
@click.option(
    "--system", help="System prompt; merged into the prompt, as Gemma-2 has no system role."
)
@click.option(
    "--schema",
    "schema_file",
    metavar="FILE",
    help="Make the answer valid JSON for the JSON Schema in FILE; printed when it is complete.",
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    help="Add a text file to the prompt, after PROMPT and before piped text; repeatable. - stands"
    " for the piped text.",
)
@session_options
@json_option
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
    """
    model, prompt = _model_and_prompt(words, files)
    wanted = None if schema_file is None else _wanted(schema_file)
    options = {"system": system, **sampling}
    with (
        raise_on_termination(),
        held_session(session) as held,
        open_model(choose_model_for(model, held), loading) as loaded,
    ):
        if held is None:
            answer(loaded, loaded.chat(**options), prompt, as_json=as_json, wanted=wanted)
            return
        with session_chat(loaded, held, snapshots=snapshots, **options) as saved:
            answer(loaded, saved.chat, prompt, as_json=as_json, wanted=wanted)


def _wanted(schema_file: str) -> AnswerFormat:
    """Read the JSON Schema in a file. Raises UsageError if it is invalid or not supported."""
    from edgesppo import schema
    from edgesppo.chat import structured

    with Path(schema_file).open("rb") as file:
        data = file.read(schema.MAX_BYTES + 1)
    return structured.answer_format(schema.parse(data, schema_file))


def answer(
    loaded: LoadedModel,
    chat: Chat,
    prompt: str,
    *,
    as_json: bool,
    wanted: AnswerFormat | None = None,
) -> None:
    """Stream one answer to standard output, or print it as one JSON object.

    Ctrl-C stops the answer, prints what was generated, and exits with 130. An answer with a schema
    is printed when it is complete or interrupted; if it is cut off, IncompleteAnswer is raised
    and nothing is printed.
    """
    interrupted = False
    clean = printable if has_terminal(sys.stdout) else str
    streams = not as_json and wanted is None
    try:
        # Closed at once if the reader of a pipe is gone: the partial answer is kept.
        with contextlib.closing(chat.stream(prompt, schema=wanted)) as chunks:
            for chunk in chunks:
                if streams:
                    click.echo(clean(chunk.text), nl=False)
                    sys.stdout.flush()
    except KeyboardInterrupt:
        interrupted = True
        if not chat.answered:
            raise
    result = chat.last
    value = {} if wanted is None or interrupted else {"value": wanted.value(result)}
    if as_json:
        emit_json({**_described(loaded, chat), **value})
    else:
        click.echo("" if streams else clean(result.text))
        say(speed_line(result))
    if interrupted:
        sys.exit(INTERRUPTED)


def _described(loaded: LoadedModel, chat: Chat) -> dict[str, Any]:
    """The last answer as --json prints it; with log-probabilities only if they were requested."""
    result = chat.last
    logprobs = [_token(entry) for entry in result.logprobs]
    return {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "usage": dataclasses.asdict(result.usage),
        "timings": {"load_s": loaded.load_s, **dataclasses.asdict(result.timings)},
        "model": {"name": loaded.name, "path": str(loaded.model.path)},
        **({} if chat.params.logprobs is None else {"logprobs": logprobs}),
    }


def _token(entry: TokenLogprob) -> dict[str, Any]:
    found = {"id": entry.id, "text": entry.text, "bytes": [*entry.data], "logprob": entry.logprob}
    return {**found, "top": [_token(other) for other in entry.top]} if entry.top else found


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
        raise click.UsageError("no prompt: give one as an argument, with -f, or through a pipe")
    return model, prompt


def _names_a_model(word: str) -> bool:
    """Whether an argument is a name in models.lock or looks like a path; files are not looked up.

    Raises click.UsageError for a word that is almost a model's name, as that is likely a typo.
    """
    names = layers.read().models
    if word in names:
        return True
    if any(letter.isspace() for letter in word):
        return False
    if word.endswith(".gguf") or "/" in word or os.sep in word:
        return True
    meant = nearest(word, names)
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
