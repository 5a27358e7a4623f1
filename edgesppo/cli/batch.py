"""`edgesppo batch`: answer many prompts from a file, many at once, into a file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from edgesppo.cli.answer_rows import answer_rows, open_answerer
from edgesppo.cli.completion import complete_files, complete_model_then_files
from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.options import (
    batch_sampling_options,
    json_option,
    model_options,
    parallel_option,
    ray_option,
    read_schema,
)
from edgesppo.cli.output import emit_json, say, tell
from edgesppo.errors import UsageError
from edgesppo.system.signals import raise_on_termination

if TYPE_CHECKING:
    from edgesppo.batches.batch import Batch
    from edgesppo.batches.output import ResultFile
    from edgesppo.batches.recipe import Recipe
    from edgesppo.cli.answer_rows import Summary


_LONGEST = 20  # characters, more than any valid number has; the recipe checks the values


def _part(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    i, slash, n = value.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and len(value) < _LONGEST):
        raise click.BadParameter(f"{value!r} is not I/N with I from 1 to N, such as 1/3")
    return int(i), int(n)


def _seeds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    words = [word.strip() for word in value.split(",")]
    if not all(word.isdecimal() and len(word) < _LONGEST for word in words):
        raise click.BadParameter(f"{value!r} is not a list of numbers, such as 0,50,100")
    return tuple(map(int, words))


@click.command(name="batch", cls=HeadedCommand)
@click.argument(
    "words", nargs=-1, metavar="[MODEL] IN OUT", shell_complete=complete_model_then_files
)
@parallel_option
@click.option(
    "-n",
    "--n",
    "n",
    type=click.IntRange(1, 128),
    help="Answers to each row; with --seed, their seeds are that one and those after it."
    " [default: 1]",
)
@click.option(
    "--seeds", callback=_seeds, metavar="LIST", help="Seeds of the answers to each row: 0,50,100."
)
@click.option("--system", help="System prompt of every row that has none.")
@click.option(
    "--schema",
    "schema_file",
    metavar="FILE",
    shell_complete=complete_files,
    help="Make every answer valid JSON for the JSON Schema in FILE.",
)
@click.option(
    "--recipe",
    type=click.Choice(["sppo"]),
    help="sppo: the data step of Self-Play Preference Optimization; OUT is a folder.",
)
@click.option(
    "--part",
    callback=_part,
    metavar="I/N",
    help="Answer only part I of N equal parts of the rows, consecutive ones.",
)
@ray_option
@json_option
@model_options
@batch_sampling_options
def batch_command(
    words: tuple[str, ...],
    parallel: int,
    n: int | None,
    seeds: tuple[int, ...] | None,
    system: str | None,
    schema_file: str | None,
    recipe: str | None,
    part: tuple[int, int] | None,
    ray: str | None,
    as_json: bool,
    loading: dict[str, Any],
    sampling: dict[str, Any],
) -> None:
    """Answer the rows of IN, many at once, and append each answer to OUT.

    MODEL is a name, a GGUF file or a checkpoint folder. The default is the model used last, else
    sppo-iter3 if it is on this machine, else the demo. IN is a file of JSON Lines (- reads standard
    input) or with a JSON list.

    A row is {"prompt": "..."} or {"messages": [...]}, with custom_id, system, schema, tools, n,
    seeds and any sampling parameter; its line of OUT is {"row", "custom_id", "text",
    "finish_reason", "seed", "usage", "error"}, with "answers" if there are several, "value" if
    there is a schema, and "tool_calls" if a tool is called. "row" is the number of its line in IN.
    Or a row is of OpenAI's batch form, {"custom_id", "method", "url", "body"}; its line of OUT is
    {"id", "custom_id", "response", "error"}.

    Answers are written as they end, not in the order of IN. A row that cannot be answered gets a
    line with an "error", and the others go on; the exit code is 1 if OUT has such lines. Stopped or
    killed at any moment, the same command goes on where it was; every row is in OUT exactly once.
    OUT.journal beside it says what is done.

    With --recipe sppo, IN has prompts, and OUT is a folder with five answers to each: seeds 0, 50,
    100, 150 and 200 at temperature 0.7, top-p 0.9, at most 2048 tokens, in responses_0.json to
    responses_4.json, as the published ranking script reads them.
    """
    from edgesppo.batches import sppo
    from edgesppo.batches.batch import Batch
    from edgesppo.batches.input import open_rows
    from edgesppo.batches.request import check_form

    model, source, out = _split(words)
    format_ = None if schema_file is None else read_schema(schema_file)
    own = {"n": n, "system": system, "answer_format": format_}
    made, path = _recipe(recipe, Path(out).expanduser(), own, sampling, seeds=seeds, part=part)
    rows_from = _standard_input() if source == "-" else source
    with raise_on_termination(), open_rows(rows_from) as rows:
        check_form(rows)
        with open_answerer(model, loading, parallel, ray) as answerer:
            job = Batch(answerer, rows, made)
            if recipe is not None:
                sppo.check_prompts(job)
            with job.open_output(path) as file:
                summary = answer_rows(job, file, "rows" if recipe is None else "answers")
                ranking = None if recipe is None else _write_sppo(job, file)
    _tell_summary(summary, ranking, as_json=as_json)
    if summary.errors:
        sys.exit(1)


def _tell_summary(summary: Summary, ranking: str | None, *, as_json: bool) -> None:
    """Print what was done; `ranking` is the command for what a recipe wrote."""
    from edgesppo.batches import sppo

    say(summary.line())
    if as_json:
        emit_json({**summary.to_dict(), **({} if ranking is None else {"ranking": ranking})})
    elif ranking is not None:
        say(f"To rank them, in a checkout of {sppo.SCRIPTS} with its packages:")
        tell(ranking)


def _recipe(
    name: str | None, out: Path, own: dict[str, Any], sampling: dict[str, Any], **more: Any
) -> tuple[Recipe, Path]:
    """What holds for every row, and the file of the answers; `own` is refused with a named recipe.

    Raises click.UsageError, and OutputError where there can be no such file.
    """
    from edgesppo.batches import sppo
    from edgesppo.batches.output import check_place
    from edgesppo.batches.recipe import Recipe

    own = {key: value for key, value in own.items() if value is not None}
    if own and name is not None:
        raise click.UsageError("--recipe sppo takes no -n, --system or --schema")
    try:
        made = Recipe(sampling, **own, **more) if name is None else sppo.recipe(sampling, **more)
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    if name is not None:
        return made, sppo.prepare(out, len(made.seeds or ()))
    check_place(out)
    return made, out


def _write_sppo(job: Batch, file: ResultFile) -> str:
    """Write the lists that the ranking script reads; returns the command that runs it."""
    from edgesppo.batches import sppo

    folder, n_seeds = file.path.parent, len(job.recipe.seeds or ())
    empty = sppo.write_responses(job, file, n_seeds)
    say(f"{folder}: responses_0.json to responses_{n_seeds - 1}.json, prompts/train.jsonl")
    if empty:
        prompts = "1 prompt has" if empty == 1 else f"{empty:,} prompts have"
        say(f"{prompts} no answer: the texts are empty; {file.path.name} says why")
    return sppo.ranking_command(folder, n_seeds)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise click.UsageError("IN is -, but standard input is closed; name a file with the rows")
    return sys.stdin.buffer


def _split(words: tuple[str, ...]) -> tuple[str | None, str, str]:
    """MODEL if it is there, IN and OUT. Raises click.UsageError."""
    if len(words) not in (2, 3):
        raise click.UsageError(f"expected [MODEL] IN OUT, found {shlex.join(words) or 'nothing'}")
    if words[-1] == "-":
        raise click.UsageError("OUT is -, expected a file: only a file can be continued")
    return (words[0] if len(words) == 3 else None), words[-2], words[-1]
