"""`edgesppo eval`: perplexity of a model, and how far it is from a reference."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli import figures
from edgesppo.cli.completion import complete_files, complete_models
from edgesppo.cli.eval_alpaca import alpaca_command
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say, tell
from edgesppo.store import locate

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.evaluate.measure import Options
    from edgesppo.evaluate.reports import DivergenceReport, PerplexityReport

_FILE = click.Path(exists=True, dir_okay=False)
_OPTIONS = [
    click.option(
        "--text",
        metavar="FILE",
        type=_FILE,
        shell_complete=complete_files,
        help="The text to measure on, UTF-8; the second half of every chunk is scored.",
    ),
    click.option(
        "--dialogues",
        metavar="FILE",
        type=_FILE,
        shell_complete=complete_files,
        help="Dialogues to measure on, JSON Lines: a list of messages a line, or an object with"
        ' "messages". They get the model\'s own turns, and their answers are counted apart.',
    ),
    click.option(
        "--n-ctx",
        type=click.IntRange(16, 2**31 - 1),
        help="Tokens of a chunk of text, and the most of a dialogue. [default: 512; the model's]",
    ),
    click.option(
        "--chunks", type=click.IntRange(1, 2**31 - 1), help="The most chunks or dialogues to use."
    ),
    click.option(
        "--threads", type=click.IntRange(1, 1024), help="Number of threads. [default: the fastest]"
    ),
    json_option,
]


def _measuring(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of both commands."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group(name="eval")
def eval_command() -> None:
    """Measure how good a model file is.

    Perplexity and divergence are llama-perplexity's; the answers for AlpacaEval need its judge.
    """


@eval_command.command(name="perplexity")
@click.argument("model", shell_complete=complete_models)
@_measuring
def perplexity_command(model: str, as_json: bool, **chosen: Any) -> None:
    """Measure the perplexity of MODEL on a text or on dialogues.

    MODEL is a name, a GGUF file or a checkpoint folder.
    """
    from edgesppo.evaluate.measure import measure_perplexity
    from edgesppo.terminal.progress import conversion_progress, measuring

    found = locate.find(model)
    with (
        conversion_progress(f"Converting {found.name} to Q4_K_M (once)") as convert,
        measuring(f"Measuring {found.name}") as report,
    ):
        result = measure_perplexity(found, _options(chosen, convert, report))
    if as_json:
        emit_json(_plain(result))
        return
    for line in figures.perplexity_lines(result):
        tell(line)


@eval_command.command(name="divergence")
@click.argument("reference", shell_complete=complete_models)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--plot",
    metavar="FILE",
    shell_complete=complete_files,
    help="Draw the histogram as a PNG, too; needs matplotlib (the extra plot).",
)
@_measuring
def divergence_command(
    reference: str, models: tuple[str, ...], plot: str | None, as_json: bool, **chosen: Any
) -> None:
    """Measure how far each MODEL is from REFERENCE.

    Compared are the predictions of every token: perplexity, the Kullback-Leibler divergence, and
    how often the most probable token is the same.

    REFERENCE is the same model in a better type, such as BF16: a name, a GGUF file, or a checkpoint
    folder, which is converted to BF16 once.
    """
    from edgesppo.evaluate.measure import measure_divergence
    from edgesppo.terminal.progress import conversion_progress, measuring

    if plot is not None:
        figures.check_plot(Path(plot))
    base, others = locate.find(reference), [locate.find(model) for model in models]
    with (
        conversion_progress("Converting the checkpoint (once)") as convert,
        measuring("Measuring") as report,
    ):
        results = measure_divergence(base, others, _options(chosen, convert, report))
    if as_json:
        first, *more = [_plain(result) for result in results]
        emit_json({"reference": first["reference"], "models": [first, *more]} if more else first)
    else:
        for line in figures.divergence_lines(results):
            tell(line)
    if plot is not None:  # last: if it cannot be drawn, the figures are printed
        figures.draw(results, Path(plot))


def _options(
    chosen: dict[str, Any], convert: Callable[..., None], report: Callable[[float], None]
) -> Options:
    from edgesppo.evaluate.candidate import RunOptions
    from edgesppo.evaluate.measure import Options
    from edgesppo.evaluate.source import read_source

    if (chosen["text"] is None) == (chosen["dialogues"] is None):
        raise click.UsageError("give either --text FILE or --dialogues FILE to measure on")
    text, dialogues = (chosen[name] and Path(chosen[name]) for name in ("text", "dialogues"))
    return Options(
        read_source(text, dialogues, n_ctx=chosen["n_ctx"], chunks=chosen["chunks"]),
        run=RunOptions(chosen["threads"], on_convert=convert),
        on_progress=lambda done, total: report(done / total),
        on_note=lambda line: say(f"edgesppo: note: {line}"),
    )


def _plain(report: PerplexityReport | DivergenceReport) -> dict[str, Any]:
    """The report as JSON: the figures themselves at the top, those of all tokens under a key."""
    found = {
        field.name: getattr(report, field.name)
        for field in dataclasses.fields(report)
        if field.name not in ("figures", "everything", "kld")
    }
    found |= dataclasses.asdict(report.figures)
    if report.everything is not None:
        found["everything"] = dataclasses.asdict(report.everything)
    return found


eval_command.add_command(alpaca_command)
