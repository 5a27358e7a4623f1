"""Owns `edgesppo run`: one prompt, one answer on standard output."""

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
from edgesppo.cli.loading import opened
from edgesppo.cli.options import json_option, model_options, sampling_options
from edgesppo.cli.output import emit_json, has_terminal, say
from edgesppo.cli.session_options import chatting, chosen_for, kept, session_options
from edgesppo.errors import UsageError
from edgesppo.lockfile import layers
from edgesppo.system.sanitize import printable
from edgesppo.system.signals import ending
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
@click.option("--system", help="A system text, merged into the prompt as Gemma-2 has it.")
@click.option(
    "--schema",
    "schema_file",
    metavar="FILE",
    help="Bind the answer to the JSON Schema in FILE: it is printed once it is complete.",
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    help="A text file that goes into the prompt, between PROMPT and what is piped; repeatable."
    " - is what is piped.",
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

    MODEL is a name, a GGUF file or a checkpoint folder. Without it: the model used last; else
    sppo-iter3, if it is here; else the demo.

    The prompt is PROMPT, the files of -f, what is piped in, or all of them, in this order. One
    word alone is MODEL if it is a name of models.lock or written like a path. In a loop, give the
    command </dev/null, or it reads what the loop reads. With --session it is the next turn of
    that chat; without, nothing is saved.
    """
    model, prompt = _model_and_prompt(words, files)
    wanted = None if schema_file is None else _wanted(schema_file)
    options = {"system": system, **sampling}
    with ending(), kept(session) as held, opened(chosen_for(model, held), loading) as loaded:
        if held is None:
            answer(loaded, loaded.chat(**options), prompt, as_json=as_json, wanted=wanted)
            return
        with chatting(loaded, held, snapshots=snapshots, **options) as saved:
            answer(loaded, saved.chat, prompt, as_json=as_json, wanted=wanted)


def _wanted(schema_file: str) -> AnswerFormat:
    """What the schema of a file asks for. UsageError when it is no schema, or not honoured."""
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

    Ctrl-C ends the answer, prints what came, and exits with 130. An answer that is bound to a
    schema is printed when it is complete or was interrupted, and not at all if it was cut
    (IncompleteAnswer).
    """
    interrupted = False
    clean = printable if has_terminal(sys.stdout) else str
    streams = not as_json and wanted is None
    try:
        # Closed at once where the reader of a pipe is gone: what came is kept.
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
    """What --json prints of the last answer; log-probabilities only where they were asked for."""
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
    """Which word is which. One word alone is a MODEL if it can be nothing else, else a PROMPT."""
    if len(words) > 2:
        raise click.UsageError("expected at most MODEL and PROMPT; put the prompt in quotes")
    alone = len(words) == 1 and _names_a_model(words[0])
    model = words[0] if alone or len(words) == 2 else None
    prompts = words[1:] if model is not None else words
    if files.count(_STDIN) > 1:
        raise click.UsageError("-f - more than once: standard input can be read once")
    read = [(_piped() if file == _STDIN else read_text(file)).strip("\n") for file in files]
    if _STDIN not in files and not has_terminal(sys.stdin):
        read.append(_piped().strip("\n"))
        if not read[-1] and _was_piped():
            say("edgesppo: what was piped in is empty")
    prompt = "\n\n".join(part for part in (*prompts, *read) if part)
    if not prompt.strip():
        raise click.UsageError("no prompt: give one as an argument, with -f, or pipe one in")
    return model, prompt


def _names_a_model(word: str) -> bool:
    """A name of models.lock, or what is written like a path; not whatever file lies around.

    One word that is almost such a name is a mistake: click.UsageError.
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
            f"{printable(word)} is no model's name: did you mean {meant}? "
            "To ask it as a prompt, name a model before it"
        )
    return False


def _piped() -> str:
    """What comes of standard input, as text; empty where that is closed. UsageError."""
    if sys.stdin is None:
        return ""
    try:
        return read_stream(sys.stdin.buffer, "standard input")
    except OSError as error:
        raise UsageError(f"standard input: cannot be read: {error.strerror or error}") from None


def _was_piped() -> bool:
    """Whether somebody gave us a pipe or a file to read; /dev/null is neither."""
    if sys.stdin is None:
        return False
    with contextlib.suppress(OSError, ValueError):
        mode = os.fstat(sys.stdin.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    return False
