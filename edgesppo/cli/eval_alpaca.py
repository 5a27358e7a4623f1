"""`edgesppo eval alpaca`: answer AlpacaEval's instructions; what that tells without a judge."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.answer_rows import answer_rows, open_answerer
from edgesppo.cli.completion import complete_files, complete_model_then_files, complete_models
from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.loading import open_with_meters
from edgesppo.cli.options import (
    batch_sampling_options,
    json_option,
    model_options,
    parallel_option,
    ray_option,
)
from edgesppo.cli.output import emit_json, say, tell
from edgesppo.store import locate
from edgesppo.system.signals import raise_on_termination

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.batches.alpaca import Instruction
    from edgesppo.batches.likelihood import Likelihood
    from edgesppo.batches.recipe import Recipe
    from edgesppo.cli.alpaca_report import Report
    from edgesppo.cli.answer_rows import Summary
    from edgesppo.loaded_model import LoadedModel


@click.command(name="alpaca", cls=HeadedCommand)
@click.argument(
    "words", nargs=-1, metavar="[MODEL] INSTRUCTIONS OUT", shell_complete=complete_model_then_files
)
@parallel_option
@click.option(
    "--prompt-form",
    type=click.Choice(["canonical", "published"]),
    default="canonical",
    show_default=True,
    help="published: without the line break after `model`, as the published outputs were made.",
)
@click.option(
    "--reference",
    metavar="FILE",
    shell_complete=complete_files,
    help="A model_outputs.json, such as the published one: say how likely MODEL finds its outputs.",
)
@click.option(
    "--against",
    metavar="MODEL",
    shell_complete=complete_models,
    help="With --reference, compare with how likely this model finds them, output by output.",
)
@click.option("--generator", help="The name of the model in OUT. [default: MODEL's]")
@ray_option
@json_option
@model_options
@batch_sampling_options
def alpaca_command(
    words: tuple[str, ...],
    parallel: int,
    prompt_form: str,
    reference: str | None,
    against: str | None,
    generator: str | None,
    ray: str | None,
    as_json: bool,
    loading: dict[str, Any],
    sampling: dict[str, Any],
) -> None:
    """Answer AlpacaEval's INSTRUCTIONS for its judge.

    OUT is the model_outputs.json that the judge takes.

    MODEL is a name, a GGUF file or a checkpoint folder. The default is the model used last, else
    sppo-iter3 if it is on this machine, else the demo. INSTRUCTIONS is alpaca_eval.json of
    https://huggingface.co/datasets/tatsu-lab/alpaca_eval, which you bring.

    The sampling is the published one: temperature 0.7, top-p 0.9, at most 2048 tokens; the seed is
    0. Stopped or killed at any moment, the same command goes on where it was. Then it says what can
    be said without a judge: lengths beside the published ones, and how many answers are empty, cut
    off, repeat themselves or have control tokens in them. An instruction that cannot be answered
    gets an empty output, and the exit code is 1. A win rate comes from a judge alone: the command
    for that is printed at the end.
    """
    from edgesppo.batches import alpaca
    from edgesppo.batches.batch import Batch
    from edgesppo.batches.input import open_rows
    from edgesppo.batches.local import LocalModel
    from edgesppo.cli.alpaca_report import Report

    if against is not None and reference is None:
        raise click.UsageError("--against compares the outputs of --reference FILE; add it")
    if reference is not None and ray is not None:
        raise click.UsageError("--reference is scored here: leave out --ray, the answers are kept")
    model, given, out = _split(words)
    recipe = alpaca.recipe(sampling, published_form=prompt_form == "published")
    path = alpaca.resumable_path(out)
    with raise_on_termination(), open_rows(given) as rows:
        instructions = alpaca.read_instructions(rows)
        pairs = [] if reference is None else _pairs(reference, instructions)
        other = None if against is None else locate.find(against)
        with open_answerer(model, loading, parallel, ray) as answerer:
            job = Batch(answerer, rows, recipe)
            with job.open_output(path) as file:
                summary = answer_rows(job, file, "answers")
                answers = alpaca.answers(instructions, file)
            alpaca.write_outputs(out, instructions, answers, generator or answerer.name)
            report = Report(out, answers)
            if pairs and isinstance(answerer, LocalModel):
                report.scores = _scores(answerer.loaded, recipe, pairs)
        if other is not None:
            with open_with_meters(loading, other) as loaded:
                report.add_other(other.name, _scores(loaded, recipe, pairs))
    _tell(summary, report, as_json=as_json)
    if summary.errors:
        sys.exit(1)


def _split(words: tuple[str, ...]) -> tuple[str | None, str, Path]:
    """MODEL if it is there, INSTRUCTIONS, and the file OUT.

    Raises click.UsageError, and OutputError where there can be no such file.
    """
    from edgesppo.batches.output import check_place

    if len(words) not in (2, 3):
        raise click.UsageError(
            f"expected [MODEL] INSTRUCTIONS OUT, found {shlex.join(words) or 'nothing'}"
        )
    out = Path(words[-1]).expanduser()
    if out.is_dir():
        out = out / "model_outputs.json"
    check_place(out)
    return (words[0] if len(words) == 3 else None), words[-2], out


def _tell(summary: Summary, report: Report, *, as_json: bool) -> None:
    """Print what was done, the figures, and the command that has the answers judged."""
    say(summary.line())
    if summary.errors:
        say(f"What has no answer is empty in {report.out}; {summary.output.name} says why")
    if as_json:
        emit_json({**summary.to_dict(), "output": str(report.out), **report.to_dict()})
        return
    for line in report.lines():
        tell(line)
    say(f"{report.out} is for AlpacaEval's judge (pip install alpaca-eval, OPENAI_API_KEY):")
    tell(report.judge)


def _pairs(reference: str, instructions: Sequence[Instruction]) -> list[tuple[str, str]]:
    from edgesppo.batches import alpaca
    from edgesppo.batches.input import open_rows

    with open_rows(reference) as rows:
        pairs = alpaca.read_reference(rows, instructions)
    missing = len(instructions) - len(pairs)
    if missing:
        say(f"{reference} has no output for {missing:,} of the instructions")
    return pairs


def _scores(
    loaded: LoadedModel, recipe: Recipe, pairs: Sequence[tuple[str, str]]
) -> list[Likelihood | None]:
    """The likelihoods of the reference's outputs, with a progress bar."""
    from edgesppo.batches.likelihood import likelihoods
    from edgesppo.terminal.progress import measuring

    with measuring(f"Scoring the reference with {loaded.name}") as report:
        found = likelihoods(loaded, recipe, pairs, report)
    if too_long := found.count(None):
        say(f"{too_long:,} outputs of the reference are longer than the context, and left out")
    return found
