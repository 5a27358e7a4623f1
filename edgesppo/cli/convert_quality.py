"""What `edgesppo convert` does for quality before it converts: calibration, choice of types."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.calibrate import stage_meters
from edgesppo.cli.completion import complete_files
from edgesppo.cli.help_format import Headed
from edgesppo.cli.output import say
from edgesppo.cli.session_options import Size
from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.store import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.evaluate.calibration import CalibrationReport
    from edgesppo.evaluate.preparation import PreparationOptions
    from edgesppo.evaluate.target_size import Allocation

_option = functools.partial(click.option, cls=Headed, heading="Quality")
_FILE = click.Path(exists=True, dir_okay=False)
_OPTIONS = [
    _option(
        "--imatrix",
        metavar="FILE",
        type=_FILE,
        help="Importance matrix, as written by edgesppo calibrate or llama-imatrix (GGUF, or the"
        " older .dat).",
    ),
    _option(
        "--calibrate",
        is_flag=True,
        help="Make the importance matrix first, as OUT.imatrix.gguf: see edgesppo calibrate.",
    ),
    _option(
        "--text",
        metavar="FILE",
        type=_FILE,
        shell_complete=complete_files,
        help="The text to calibrate on. [default: the model's own answers]",
    ),
    _option(
        "--dialogues",
        metavar="FILE",
        type=_FILE,
        shell_complete=complete_files,
        help="The dialogues to calibrate on, JSON Lines.",
    ),
    _option(
        "--target-size",
        type=Size(),
        metavar="SIZE",
        help="Choose each tensor's type by measuring, so that the file has at most this size, such"
        " as 5.76GB.",
    ),
    _option(
        "--target-bpw",
        type=click.FloatRange(0, 32, min_open=True),
        metavar="BITS",
        help="The same, for at most so many bits per weight of the matrices.",
    ),
]
_NAMES = ("calibrate", "text", "dialogues", "target_size", "target_bpw")


def quality_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command receives `imatrix`, and the others as one dict, `quality`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        quality = {name: kwargs.pop(name) for name in _NAMES}
        _check(quality, kwargs)
        return command(*args, quality=quality, **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _check(quality: dict[str, Any], chosen: dict[str, Any]) -> None:
    targeted = _is_targeted(quality)
    runs_model = quality["calibrate"] or targeted
    option = "--target-size" if targeted else "--calibrate"
    if quality["calibrate"] and chosen["imatrix"] is not None:
        raise click.UsageError("--calibrate makes an importance matrix; leave out --imatrix")
    if quality["text"] and quality["dialogues"]:
        raise click.UsageError("give either --text or --dialogues to calibrate on")
    if not runs_model and (quality["text"] or quality["dialogues"]):
        raise click.UsageError("--text and --dialogues need --calibrate or --target-size")
    if None not in (quality["target_size"], quality["target_bpw"]):
        raise click.UsageError("give either --target-size or --target-bpw")
    if chosen["plan"] and runs_model:
        raise click.UsageError("--plan runs no model; leave out --calibrate and --target-size")
    if targeted and chosen["tensor_types"]:
        raise click.UsageError("--target-size chooses every type; leave out --tensor-type")
    if runs_model and chosen["type"] in ("f32", "f16", "bf16"):
        which = f"leave out --type {chosen['type']}"
        raise click.UsageError(f"{option} is for quantised types; {which}")
    if runs_model and chosen["adapters"]:
        raise click.UsageError(
            f"{option} runs SRC as it is, without --adapter; merge the adapter first (convert"
            " --adapter --type bf16), calibrate that file, and give the matrix by --imatrix"
        )


def _is_targeted(quality: dict[str, Any]) -> bool:
    return quality["target_size"] is not None or quality["target_bpw"] is not None


def check_source(source: str, quality: dict[str, Any]) -> None:
    """Refuse a source that cannot be run first. Raises UsageError."""
    if (quality["calibrate"] or _is_targeted(quality)) and not Path(source).is_dir():
        option = "--calibrate" if quality["calibrate"] else "--target-size"
        raise UsageError(
            f"{option} runs the model first, so it needs a checkpoint folder, not {source}; "
            "download it with convert --keep, or with the hub's own tools"
        )


@contextlib.contextmanager
def improved(
    source: str, output: str, quality: dict[str, Any], chosen: dict[str, Any]
) -> Iterator[Allocation | None]:
    """Do what was asked for, and put what the conversion in the block needs into `chosen`.

    Yields the types that were chosen for a target, if one was given.
    """
    if not (quality["calibrate"] or _is_targeted(quality)):
        if chosen["imatrix"] is not None:
            _say_if_thin(Path(chosen["imatrix"]), source)
        yield None
        return
    from edgesppo.evaluate.preparation import Preparation
    from edgesppo.terminal.progress import conversion_progress
    from edgesppo_convert.output.preconditions import check_target

    target, found = check_target(Path(output), force=chosen["force"]), locate.find(source)
    if not found.is_checkpoint:  # the conversion says what it is instead, and what to do
        yield None
        return
    with Preparation(found, Path(output), target, _options(quality, chosen)) as preparation:
        title = "Making a copy to measure on"
        with conversion_progress(title) as on_convert, stage_meters() as on_progress:
            prepared = preparation.run(on_convert, on_progress)
        if prepared.report is not None:
            _tell_matrix(prepared.report)
        elif chosen["imatrix"] is not None:
            _say_if_thin(Path(chosen["imatrix"]), source)
        chosen["imatrix"] = prepared.imatrix and str(prepared.imatrix)
        if prepared.allocation is not None:
            chosen["tensor_types"] = prepared.allocation.overrides
        yield prepared.allocation
        preparation.remove_leftovers()


def _options(quality: dict[str, Any], chosen: dict[str, Any]) -> PreparationOptions:
    from edgesppo.evaluate.preparation import PreparationOptions
    from edgesppo.evaluate.source import read_optional_source

    text, dialogues = (quality[name] and Path(quality[name]) for name in ("text", "dialogues"))
    return PreparationOptions(
        calibrate=quality["calibrate"],
        target_size=quality["target_size"],
        target_bpw=quality["target_bpw"],
        source=read_optional_source(text, dialogues),
        type=chosen["type"],
        tensor_types=chosen["tensor_types"],
        imatrix=chosen["imatrix"] and Path(chosen["imatrix"]),
        n_threads=chosen["n_threads"],
        force=chosen["force"],
    )


def _tell_matrix(report: CalibrationReport) -> None:
    say(f"{report.output}: {report.weights} weights, {report.tokens:,} tokens")
    for note in report.notes:
        say(f"edgesppo: note: {note}")


def allocation_lines(allocation: Allocation, costs: dict[str, float]) -> Iterator[str]:
    """The table that says why each type was chosen; `costs` has seconds of decoding by name."""
    heads = ("bytes", "alone", "expected", "decode")
    yield f"{'tensor':<26}{'type':<9}{heads[0]:>14}{heads[1]:>11}{heads[2]:>11}{heads[3]:>10}"
    for one in allocation.types:
        cost = f"{1e6 * costs[one.name]:,.0f} us" if one.name in costs else ""
        yield (
            f"{one.name:<26}{one.type + '*' * one.weighted:<9}{one.bytes:>14,}"
            f"{one.sensitivity:>11.7f}{one.loss:>11.7f}{cost:>10}"
        )
    if allocation.weighted:
        yield "*: quantised with the importance of its columns, which measured better than without"
    yield "alone: mean KL divergence when it alone has about 4.5 bits; expected: in its type"
    yield "decode: the time of its product for one token, here"
    samples = "held-out samples"
    if not allocation.is_held_out:
        samples = "the only sample, by which they were chosen"
    measured = f"measured {allocation.measured:.6f} on {samples}"
    yield f"mean KL divergence: expected {allocation.predicted:.6f}, {measured}"
    if allocation.unweighted is not None:
        verdict = "no better" if allocation.weighted else "it was taken"
        yield f"without any importance: measured {allocation.unweighted:.6f}, {verdict}"
    if allocation.is_recipe:
        verdict = "it was taken"
    elif allocation.recipe_fits:
        verdict = "no better"
    else:
        verdict = "its file would be too large"
    yield (
        f"the recipe's own choice, {allocation.recipe_bytes:,} bytes of matrices: measured"
        f" {allocation.recipe_measured:.6f}, {verdict}"
    )


def _say_if_thin(path: Path, source: str) -> None:
    """Say which weights a matrix has hardly seen; the converter says what is wrong with it."""
    from edgesppo.evaluate.calibration import thin_note
    from edgesppo.evaluate.importance import read_sums
    from edgesppo.evaluate.preparation import planned_layers
    from edgesppo_convert import look_ahead

    with contextlib.suppress(EdgesppoError):
        sums = read_sums(path)
        layers = planned_layers(look_ahead(source)) if Path(source).is_dir() else ()
        note = thin_note(sums, layers)
        if note is not None:
            say(f"edgesppo: note: {path}: {note}")
