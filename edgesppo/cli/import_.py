"""`edgesppo import`: give a model file of the user's own, or of another program's, a name."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.completion import complete_files
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say
from edgesppo.gguf import gemma2
from edgesppo.lockfile import layers
from edgesppo.store import locate
from edgesppo.system.units import size
from edgesppo.terminal.progress import Meter

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedModel


@click.command(name="import")
@click.argument("paths", metavar="[FILE|FOLDER]", nargs=-1, shell_complete=complete_files)
@click.option(
    "--name",
    help="What to call it. [default: the file's name; where that is a hash, as Ollama's are, what"
    " the file says of itself]",
)
@click.option(
    "--scan",
    is_flag=True,
    help="List the Gemma-2 models of Ollama, LM Studio, llama.cpp and the hub's cache; with names"
    " from that list, import these.",
)
@click.option("--all", "everything", is_flag=True, help="With --scan: import all that can be run.")
@json_option
def import_command(
    paths: tuple[str, ...], name: str | None, scan: bool, everything: bool, as_json: bool
) -> None:
    """Give a GGUF file or a checkpoint folder of your own a name.

    The file is checked as a run would check it, and hashed, and your lock records its path: it
    stays where it is, and nothing is copied. If it is moved or its size changes later, every
    command that uses it says so; edgesppo verify checks its hash again.

    --scan looks for models that other programs have here, under the names that these use.
    """
    if scan:
        from edgesppo.cli.import_scan import import_found

        sys.exit(import_found(paths, name, everything=everything, as_json=as_json))
    if everything:
        raise click.UsageError("--all is for --scan")
    if len(paths) != 1:
        found = "several" if paths else "none"
        raise click.UsageError(f"expected one FILE or FOLDER, found {found}; or --scan")
    entry = adopt(Path(paths[0]), name)
    notes = notes_of(entry)
    if as_json:
        emit_json({**entry_figures(entry), "notes": notes})
        return
    report(entry, notes)
    say(f"Next: edgesppo chat {entry.name}")


def adopt(path: Path, name: str | None, description: str | None = None) -> PinnedModel:
    """Register a model, with a progress bar for hashing it."""
    from edgesppo.store.register import register

    with contextlib.closing(Meter(f"Hashing {path.name}")) as meter:
        return register(path, name, meter.update, description)


def notes_of(entry: PinnedModel) -> list[str]:
    """What the model's file has that is without effect here."""
    found = locate.of_entry(entry)
    return [] if found.is_checkpoint else gemma2.notes(gemma2.load_summary(found.path))


def entry_figures(entry: PinnedModel) -> dict[str, Any]:
    """A new entry as values for JSON."""
    files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in entry.files]
    figures = {"name": entry.name, "kind": entry.kind, "location": entry.location}
    return {**figures, "bytes": entry.size, "files": files}


def report(entry: PinnedModel, notes: list[str]) -> None:
    """Tell what was recorded, and the notes."""
    say(
        f"{entry.name}: {size(entry.size)} in {entry.location}, recorded in {layers.write_target()}"
    )
    for note in notes:
        say(f"Note: {note}")
