"""What `edgesppo convert` does for quality before it converts: calibration, choice of types."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.calibrate import stage_meters
from edgesppo.cli.completion import complete_files
from edgesppo.cli.help_format import Headed
from edgesppo.cli.output import say
from edgesppo.cli.session_options import Size
from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.store import converted, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.evaluate.better_bits import TargetPlan
    from edgesppo.evaluate.candidate import RunOptions
    from edgesppo.evaluate.target_size import Allocation
    from edgesppo.store.converted import TemporaryCopy

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
    if quality["calibrate"] and chosen["imatrix"] is not None:
        raise click.UsageError("--calibrate makes an importance matrix; leave out --imatrix")
    if quality["text"] and quality["dialogues"]:
        raise click.UsageError("give either --text or --dialogues to calibrate on")
    if not (quality["calibrate"] or targeted) and (quality["text"] or quality["dialogues"]):
        raise click.UsageError("--text and --dialogues need --calibrate or --target-size")
    if None not in (quality["target_size"], quality["target_bpw"]):
        raise click.UsageError("give either --target-size or --target-bpw")
    if chosen["plan"] and (quality["calibrate"] or targeted):
        raise click.UsageError("--plan runs no model; leave out --calibrate and --target-size")
    if targeted and chosen["tensor_types"]:
        raise click.UsageError("--target-size chooses every type; leave out --tensor-type")
    if targeted and chosen["type"] in ("f32", "f16", "bf16"):
        raise click.UsageError(
            f"--target-size chooses among quantised types; leave out --type {chosen['type']}"
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
    from edgesppo.evaluate.candidate import unquantised_type
    from edgesppo_convert.output.preconditions import check_target

    if not (quality["calibrate"] or _is_targeted(quality)):
        if chosen["imatrix"] is not None:
            _say_if_thin(Path(chosen["imatrix"]))
        yield None
        return
    target, found = check_target(Path(output), force=chosen["force"]), locate.find(source)
    if not found.is_checkpoint:  # the conversion says what it is instead, and what to do
        yield None
        return
    copy = converted.TemporaryCopy(target, converted.copy_of(found, unquantised_type(found)))
    preparation = _Preparation(source, Path(output), quality, chosen, copy)
    yield preparation.run()
    preparation.remove_leftovers()


class _Preparation:
    """Calibrates and chooses types, as far as it was asked for.

    What the conversion needs is put into `chosen`; the model is run from `copy`.
    """

    def __init__(
        self,
        source: str,
        output: Path,
        quality: dict[str, Any],
        chosen: dict[str, Any],
        copy: TemporaryCopy,
    ) -> None:
        self._source, self._output = source, output
        self._quality, self._chosen = quality, chosen
        self._copy = copy
        self._plan: TargetPlan | None = None
        self._files: dict[str, Any] = {
            name: quality[name] and Path(quality[name]) for name in ("text", "dialogues")
        }

    def run(self) -> Allocation | None:
        """Returns the types that were chosen for a target, if one was given."""
        quality, chosen = self._quality, self._chosen
        if _is_targeted(quality):
            from edgesppo.evaluate.better_bits import check_target

            size, bpw = quality["target_size"], quality["target_bpw"]
            check_target(self._source, chosen["type"], size, bpw)
        if quality["calibrate"]:
            chosen["imatrix"] = str(self._calibrate())
        elif chosen["imatrix"] is not None:
            _say_if_thin(Path(chosen["imatrix"]))
        if not _is_targeted(quality):
            return None
        allocation = self._allocate()
        chosen["tensor_types"] = allocation.overrides
        if chosen["imatrix"] is not None:
            chosen["imatrix"] = self._used_part(Path(chosen["imatrix"]), allocation)
        return allocation

    def remove_leftovers(self) -> None:
        """Remove what was kept to resume, and the copy, which is as large as the checkpoint."""
        if self._plan is not None:
            self._plan.remove_leftovers()
        self._copy.remove()

    def _calibrate(self) -> Path:
        """The importance matrix beside the output; one that an earlier run made is used again."""
        from edgesppo.evaluate.calibration import CalibrationOptions, calibrate

        path = self._output.with_suffix(".imatrix.gguf")
        with self._measuring("Making a copy to calibrate") as (run, on_progress):
            options = CalibrationOptions(
                **self._files,
                process_output=_is_targeted(self._quality),
                force=self._chosen["force"],
                reuse=True,
                run=run,
                on_progress=on_progress,
            )
            report = calibrate(locate.find(self._source), path, options)
        say(f"{path}: {report.weights} weights, {report.tokens:,} tokens")
        for note in report.notes:
            say(f"edgesppo: note: {note}")
        return path

    def _allocate(self) -> Allocation:
        from edgesppo.evaluate.better_bits import TargetOptions, TargetPlan

        quality, imatrix = self._quality, self._chosen["imatrix"]
        with self._measuring("Making a copy to measure on") as (run, on_progress):
            options = TargetOptions(
                quality["target_size"],
                quality["target_bpw"],
                self._chosen["type"],
                imatrix and Path(imatrix),
                **self._files,
                run=run,
                on_progress=on_progress,
            )
            target = Path(os.path.realpath(self._output))
            self._plan = TargetPlan(self._source, target, options)
            return self._plan.allocate()

    def _used_part(self, imatrix: Path, allocation: Allocation) -> str | None:
        """The importances that proved better than none, in a file for llama-quantize, too."""
        from edgesppo.evaluate.importance import write_part

        if not allocation.weighted:
            return None
        used = self._output.with_suffix(".used.imatrix.gguf")
        write_part(used, imatrix, allocation.weighted)
        return str(used)

    @contextlib.contextmanager
    def _measuring(
        self, making_a_copy: str
    ) -> Iterator[tuple[RunOptions, Callable[[str, int, int], None]]]:
        """How to run the model, and where to report what is done."""
        from edgesppo.evaluate.candidate import RunOptions
        from edgesppo.terminal.progress import conversion_progress

        with conversion_progress(making_a_copy) as on_convert, stage_meters() as on_progress:
            yield (
                RunOptions(self._chosen["threads"], on_convert=self._copy.recording(on_convert)),
                on_progress,
            )


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
        yield "*: quantised with the importance of its columns, which is better than without"
    yield "alone: mean KL divergence when it alone has about 4.5 bits; expected: in its type"
    yield "decode: the time of its product for one token, here"
    measured = f"measured {allocation.measured:.6f} on held-out samples"
    yield f"mean KL divergence: expected {allocation.predicted:.6f}, {measured}"
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


def _say_if_thin(path: Path) -> None:
    """Say which weights a matrix has hardly seen; the converter says what is wrong with it."""
    from edgesppo.evaluate.calibration import thin_note
    from edgesppo.evaluate.importance import read_sums

    with contextlib.suppress(EdgesppoError):
        note = thin_note(read_sums(path).hardly_seen)
        if note is not None:
            say(f"edgesppo: note: {path}: {note}")
