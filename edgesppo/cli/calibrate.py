"""`edgesppo calibrate`: collect an importance matrix, merge several, or show one."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.completion import complete_files, complete_models
from edgesppo.cli.loading import known_everywhere
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say, tell
from edgesppo.store import locate
from edgesppo.system.shell import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.evaluate.calibration import CalibrationReport
    from edgesppo.evaluate.cluster_sums import OnCluster

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(name="calibrate")
@click.argument("model", required=False, shell_complete=complete_models)
@click.option(
    "-o", "--output", metavar="FILE", shell_complete=complete_files, help="The matrix to write."
)
@click.option(
    "--text",
    metavar="FILE",
    type=_FILE,
    shell_complete=complete_files,
    help="A text to calibrate on, UTF-8.",
)
@click.option(
    "--dialogues",
    metavar="FILE",
    type=_FILE,
    shell_complete=complete_files,
    help="Dialogues to calibrate on, JSON Lines: a list of messages a line, or an object with"
    ' "messages"; they get the model\'s own turns.',
)
@click.option(
    "--generate",
    "n_dialogues",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Without a text or dialogues: how many shipped questions the model answers itself."
    " [default: 64]",
)
@click.option(
    "--process-output", is_flag=True, help="Also collect for the output matrix (the embedding)."
)
@click.option(
    "--n-ctx", type=click.IntRange(16, 2**31 - 1), help="Tokens of a chunk of text. [default: 512]"
)
@click.option(
    "--chunks", type=click.IntRange(1, 2**31 - 1), help="The most chunks or dialogues to use."
)
@click.option(
    "--merge",
    multiple=True,
    metavar="FILE",
    type=_FILE,
    shell_complete=complete_files,
    help="Add the sums of another matrix; repeatable. Without MODEL, only merge.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Number of threads. [default: the fastest]"
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Spread the text over the machines of a Ray cluster (HOST:6379); each loads MODEL from its"
    " own store.",
)
@click.option("--show", is_flag=True, help="Print which weights matter; MODEL may be a matrix.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
def calibrate_command(
    model: str | None, output: str | None, show: bool, as_json: bool, **chosen: Any
) -> None:
    """Collect an importance matrix of MODEL: which columns of its weights matter.

    MODEL is a name, a GGUF file or a checkpoint folder, which is run in BF16, or as a Q8_0 copy if
    that does not fit into memory. Without a text or dialogues, the model answers questions that are
    shipped, and is calibrated on that.

    If interrupted, run the same command again to resume it. Use the matrix with convert --imatrix.
    """
    from edgesppo.evaluate import importance

    if show and output is None:
        if model is None:
            raise click.UsageError("--show needs a matrix to show, or -o FILE to make one")
        if not importance.is_matrix(Path(model)):
            raise click.UsageError(
                f"{model} is not an importance matrix; to make one of a model, give -o FILE"
            )
        _show(Path(model), as_json)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output', the matrix to write")
    report = _calibrate(model, output, chosen)
    if as_json and not show:
        emit_json({**dataclasses.asdict(report), "output": str(report.output)})
    elif not as_json:
        _summarise(report)
    if show:
        _show(report.output, as_json)


def _calibrate(model: str | None, output: str, chosen: dict[str, Any]) -> CalibrationReport:
    from edgesppo.evaluate.calibration import CalibrationOptions, calibrate
    from edgesppo.evaluate.candidate import RunOptions
    from edgesppo.evaluate.source import read_optional_source
    from edgesppo.terminal.progress import conversion_progress

    found = None if model is None else locate.find(model)
    text, dialogues = (chosen[name] and Path(chosen[name]) for name in ("text", "dialogues"))
    source = read_optional_source(text, dialogues, n_ctx=chosen["n_ctx"], chunks=chosen["chunks"])
    names = ("n_dialogues", "process_output", "merge", "force")
    same: dict[str, Any] = {name: chosen[name] for name in names}
    with (
        conversion_progress("Converting the checkpoint (once)") as on_convert,
        stage_meters() as on_progress,
    ):
        options = CalibrationOptions(
            source,
            **same,
            ray=_cluster(chosen["ray"], model),
            run=RunOptions(chosen["threads"], on_convert=on_convert),
            on_progress=on_progress,
        )
        return calibrate(found, output, options)


def _cluster(address: str | None, model: str | None) -> OnCluster | None:
    from edgesppo.evaluate.cluster_sums import OnCluster

    if address is None:
        return None
    if model is None:
        raise click.UsageError("--ray needs MODEL: a name, or a path, under which all have it")
    return OnCluster(address, known_everywhere(model), say)


@contextlib.contextmanager
def stage_meters() -> Iterator[Callable[[str, int, int], None]]:
    """A callback that draws a progress bar for each stage."""
    from edgesppo.terminal.progress import Meter

    meters: dict[str, Meter] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in meters:
            for meter in meters.values():
                meter.close()
            meters[stage] = Meter(stage, in_bytes=False)
        meters[stage].update(done, total)

    try:
        yield report
    finally:
        for meter in meters.values():
            meter.close()


def _summarise(report: CalibrationReport) -> None:
    say(
        f"{report.output}: {report.weights} weights, {report.tokens:,} tokens,"
        f" {report.seconds:.1f} s"
    )
    if report.resumed:
        say(f"{report.resumed} samples of the interrupted run were used")
    for note in report.notes:
        say(f"edgesppo: note: {note}")
    say(f"Next: edgesppo convert SRC -o OUT --imatrix {shell_word(str(report.output))}")


def _show(path: Path, as_json: bool) -> None:
    """Print the weights of a matrix, those with the largest inputs first."""
    from edgesppo.evaluate import importance
    from edgesppo.evaluate.calibration import thin_note

    sums = importance.read_sums(path)
    ranked = importance.rank(sums)
    if as_json:
        weights = [dataclasses.asdict(one) for one in ranked]
        emit_json({"datasets": sums.datasets, "tokens": sums.n_tokens, "weights": weights})
        return
    tell(f"{path}: {len(ranked)} weights, {sums.n_tokens:,} tokens of {_names(sums.datasets)}")
    tell(f"  {'weight':<28}{'tokens':>10}{'input':>14}{'top 1%':>9}")
    for one in ranked:
        tell(f"  {one.weight:<28}{one.tokens:>10,}{one.total:>14,.2f}{one.top:>9.1%}")
    tell("input: sum of the columns' mean squares; top 1%: the share of the largest hundredth")
    note = thin_note(sums)
    if note is not None:
        say(f"edgesppo: note: {note}")


def _names(datasets: list[str]) -> str:
    return ", ".join(datasets) or "unknown texts"
