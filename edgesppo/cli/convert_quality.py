"""What `edgesppo convert` does for quality before it converts: calibration."""

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
from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.store import locate

if TYPE_CHECKING:
    from collections.abc import Callable

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
]


def quality_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command receives `imatrix`, and the others as one dict, `quality`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        quality = {name: kwargs.pop(name) for name in ("calibrate", "text", "dialogues")}
        _check(quality, kwargs["imatrix"])
        return command(*args, quality=quality, **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _check(quality: dict[str, Any], imatrix: str | None) -> None:
    if quality["calibrate"] and imatrix is not None:
        raise click.UsageError("--calibrate makes an importance matrix; leave out --imatrix")
    if quality["text"] and quality["dialogues"]:
        raise click.UsageError("give either --text or --dialogues to calibrate on")
    if not quality["calibrate"] and (quality["text"] or quality["dialogues"]):
        raise click.UsageError("--text and --dialogues need --calibrate, which uses them")


def improve(source: str, output: str, quality: dict[str, Any], chosen: dict[str, Any]) -> None:
    """Do what was asked for, and put what the conversion needs into `chosen`."""
    if quality["calibrate"]:
        chosen["imatrix"] = str(_calibrate(source, output, quality, force=chosen["force"]))
    elif chosen["imatrix"] is not None:
        _say_if_thin(Path(chosen["imatrix"]))


def _say_if_thin(path: Path) -> None:
    """Say which weights a matrix has hardly seen; the converter says what is wrong with it."""
    from edgesppo.evaluate.calibration import thin_note
    from edgesppo.evaluate.importance import read_sums

    with contextlib.suppress(EdgesppoError):
        note = thin_note(read_sums(path).hardly_seen)
        if note is not None:
            say(f"edgesppo: note: {path}: {note}")


def check_source(source: str, quality: dict[str, Any]) -> None:
    """Refuse a source that cannot be run first. Raises UsageError."""
    if quality["calibrate"] and not Path(source).is_dir():
        raise UsageError(
            f"--calibrate runs the model first, so it needs a checkpoint folder, not {source}; "
            "download it with convert --keep, or with the hub's own tools"
        )


def _calibrate(source: str, output: str, quality: dict[str, Any], *, force: bool) -> Path:
    """The importance matrix beside the output; one that an earlier run made is used again."""
    from edgesppo.evaluate.calibration import CalibrationOptions, calibrate
    from edgesppo.evaluate.candidate import RunOptions
    from edgesppo.terminal.progress import conversion_progress

    target = Path(output).with_suffix(".imatrix.gguf")
    files: dict[str, Any] = {
        name: quality[name] and Path(quality[name]) for name in ("text", "dialogues")
    }
    with (
        conversion_progress("Making a copy to calibrate") as on_convert,
        stage_meters() as on_progress,
    ):
        options = CalibrationOptions(
            **files,
            force=force,
            reuse=True,
            run=RunOptions(on_convert=on_convert),
            on_progress=on_progress,
        )
        report = calibrate(locate.find(source), target, options)
    say(f"{target}: {report.weights} weights, {report.tokens:,} tokens")
    for note in report.notes:
        say(f"edgesppo: note: {note}")
    return target
