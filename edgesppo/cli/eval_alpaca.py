"""`edgesppo eval alpaca`: answer AlpacaEval's instructions; what that tells without a judge."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.answer_rows import answer_rows
from edgesppo.cli.completion import complete_first_model
from edgesppo.cli.help_format import HeadedCommand
from edgesppo.cli.loading import choose_model, open_model
from edgesppo.cli.options import json_option, model_options, parallel_option, sampling_options
from edgesppo.cli.output import emit_json, say, tell
from edgesppo.system.signals import raise_on_termination

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgesppo.batches.answer_figures import Figures

_PUBLISHED = 805  # AlpacaEval's instructions


@click.command(name="alpaca", cls=HeadedCommand)
@click.argument(
    "words", nargs=-1, metavar="[MODEL] INSTRUCTIONS OUT", shell_complete=complete_first_model
)
@parallel_option
@click.option(
    "--prompt-form",
    type=click.Choice(["canonical", "published"]),
    default="canonical",
    show_default=True,
    help="published: without the line break after `model`, as the published outputs were made.",
)
@click.option("--generator", help="The name of the model in OUT. [default: MODEL's]")
@json_option
@model_options
@sampling_options
def alpaca_command(
    words: tuple[str, ...],
    parallel: int,
    prompt_form: str,
    generator: str | None,
    as_json: bool,
    loading: dict[str, Any],
    sampling: dict[str, Any],
) -> None:
    """Answer AlpacaEval's INSTRUCTIONS, and write OUT, the model_outputs.json that its judge takes.

    MODEL is a name, a GGUF file or a checkpoint folder. The default is the model used last, else
    sppo-iter3 if it is on this machine, else the demo. INSTRUCTIONS is alpaca_eval.json of
    https://huggingface.co/datasets/tatsu-lab/alpaca_eval, which you bring.

    The sampling is the published one: temperature 0.7, top-p 0.9, at most 2048 tokens; the seed is
    0. Stopped or killed at any moment, the same command goes on where it was. Then it says what can
    be said without a judge: lengths beside the published ones, and how many answers are empty, cut
    off, repeat themselves or have control tokens in them. A win rate comes from a judge alone: the
    command for that is printed at the end.
    """
    from edgesppo.batches import alpaca
    from edgesppo.batches.answer_figures import by_subset, figures
    from edgesppo.batches.batch import Batch
    from edgesppo.batches.input import open_rows
    from edgesppo.batches.output import check_place

    if len(words) not in (2, 3):
        raise click.UsageError(f"expected [MODEL] INSTRUCTIONS OUT, found {len(words)} arguments")
    model, out = (words[0] if len(words) == 3 else None), Path(words[-1]).expanduser()
    if out.is_dir():
        out = out / "model_outputs.json"
    check_place(out)
    path = alpaca.resumable_path(out)
    recipe = alpaca.recipe(sampling, published_form=prompt_form == "published")
    loading["n_seqs"] = parallel
    with raise_on_termination(), open_rows(words[-2]) as rows:
        instructions = alpaca.read_instructions(rows)
        with open_model(choose_model(model), loading) as loaded:
            job = Batch(loaded, rows, recipe, parallel=parallel)
            with job.open_output(path) as file:
                summary = answer_rows(job, file, "answers")
                answers = alpaca.answers(instructions, file)
            alpaca.write_outputs(out, instructions, answers, generator or loaded.name)
    say(summary.line())
    found, command = figures(answers), alpaca.judge_command(out)
    if as_json:
        subsets = {name: _plain(part) for name, part in by_subset(answers).items()}
        published = {"published_lengths": alpaca.PUBLISHED_LENGTHS, "judge": command}
        own = {**summary.to_dict(), "output": str(out)}
        emit_json({**own, **_plain(found), "subsets": subsets, **published})
        return
    for line in _lines(found, by_subset(answers), alpaca.PUBLISHED_LENGTHS):
        tell(line)
    say(f"{out} is for AlpacaEval's judge (pip install alpaca-eval, OPENAI_API_KEY):")
    tell(command)


def _plain(found: Figures) -> dict[str, Any]:
    return dataclasses.asdict(found)


def _lines(
    found: Figures, subsets: Mapping[str, Figures], published: Mapping[str, int]
) -> Iterator[str]:
    yield f"{'':<16}{'answers':>9}{'mean characters':>26}{'empty':>8}{'cut off':>9}" + (
        f"{'repeating':>11}{'control tokens':>16}"
    )
    yield _row("all", found)
    if len(subsets) > 1:
        for name, part in subsets.items():
            yield _row(name or "(no dataset)", part)
    for name, length in published.items():
        yield f"{'published ' + name:<16}{_PUBLISHED:>9}{length:>26,}  {_compared(found, length)}"


def _row(name: str, found: Figures) -> str:
    mean = f"{found.mean_length:,.0f}"
    if found.interval is not None:
        mean += f" ({found.interval[0]:,.0f} to {found.interval[1]:,.0f})"
    counts = f"{found.empty:>8,}{found.cut_off:>9,}{found.repeating:>11,}"
    return f"{name[:15]:<16}{found.count:>9,}{mean:>26}{counts}{found.with_control_tokens:>16,}"


def _compared(found: Figures, length: int) -> str:
    """Where a published length lies: within the interval, or on which side of it."""
    if found.interval is None:
        return ""
    low, high = found.interval
    if low <= length <= high:
        return "inside the interval"
    return "above the interval" if length > high else "below the interval"
