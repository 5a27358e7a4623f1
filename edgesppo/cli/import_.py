"""`edgesppo import`: give a model file of the user's own a name."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from edgesppo.cli.completion import complete_files
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say
from edgesppo.gguf import gemma2
from edgesppo.lockfile import layers
from edgesppo.store import locate
from edgesppo.system.units import size
from edgesppo.terminal.progress import Meter


@click.command(name="import")
@click.argument("path", metavar="FILE|FOLDER", shell_complete=complete_files)
@click.option(
    "--name",
    help="What to call it. [default: the file's name; where that is a hash, as Ollama's are, what"
    " the file says of itself]",
)
@json_option
def import_command(path: str, name: str | None, as_json: bool) -> None:
    """Give a GGUF file or a checkpoint folder of your own a name.

    The file is checked and hashed, and your lock records its path: it stays where it is, and
    nothing is copied. If it is moved or its size changes later, every command that uses it says
    so; edgesppo verify checks its hash again.
    """
    from edgesppo.store.register import register

    with contextlib.closing(Meter(f"Hashing {Path(path).name}")) as meter:
        entry = register(Path(path), name, meter.update)
    found = locate.of_entry(entry)
    notes = [] if found.is_checkpoint else gemma2.notes(gemma2.load_summary(found.path))
    if as_json:
        files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in entry.files]
        figures = {"name": entry.name, "kind": entry.kind, "location": entry.location}
        emit_json({**figures, "bytes": entry.size, "files": files, "notes": notes})
        return
    say(
        f"{entry.name}: {size(entry.size)} in {entry.location}, recorded in {layers.write_target()}"
    )
    for note in notes:
        say(f"Note: {note}")
    say(f"Next: edgesppo chat {entry.name}")
