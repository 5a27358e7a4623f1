"""Owns `edgesppo list`, `path` and `import`."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.options import emit_json, has_terminal, json_option, say, tell
from edgesppo.lockfile import layers
from edgesppo.store import layout, locate, verify
from edgesppo.system.sanitize import one_line, printable
from edgesppo.terminal.progress import Meter
from edgesppo.terminal.transfer import size

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedModel


@click.command(name="list")
@json_option
def list_command(as_json: bool) -> None:
    """List the models of all locks that count, and which of them are on this machine."""
    entries = list(layers.read().models.values())
    rows = [_row(entry) for entry in entries]
    if as_json:
        emit_json({"folder": str(layout.root()), "models": rows})
        return
    width = max(len(row["name"]) for row in rows)
    columns = shutil.get_terminal_size().columns if has_terminal(sys.stdout) else sys.maxsize
    for row in rows:
        taken = size(row["bytes"]) if row["bytes"] else ""
        line = (
            f"{row['name']:<{width}}  {row['state']:<9} {taken:>9}  {one_line(row['description'])}"
        )
        tell(line if len(line) < columns else f"{line[: columns - 4]}...")


def _row(entry: PinnedModel) -> dict[str, Any]:
    """What there is of an entry here; `bytes` is what it takes on the disk."""
    made = layout.build(entry)
    n_bytes = sum(layout.size_of(path) or 0 for path, *_ in verify.present(entry))
    if made is not None:
        state, path = "converted", made[0]
    elif layout.is_there(entry):
        state, path = "here", layout.model_file(entry)
    else:
        begun = n_bytes or (entry.repository and entry.is_pinned and layout.folder(entry).is_dir())
        state, path = "in part" if begun else "absent", None
    return {
        "name": entry.name,
        "state": state,
        "path": None if path is None else str(path),
        "bytes": n_bytes,
        "kind": entry.kind,
        "description": entry.description,
        "repository": entry.repository,
        "revision": entry.revision,
        "license": entry.license,
    }


@click.command(name="path")
@click.argument("name")
@json_option
def path_command(name: str, as_json: bool) -> None:
    """Print where NAME is: its GGUF file, or its checkpoint folder."""
    found = locate.find(name)
    where = found.path.absolute()
    if as_json:
        emit_json({"name": found.name, "path": str(where), "is_checkpoint": found.is_checkpoint})
    else:
        click.echo(printable(str(where)) if has_terminal(sys.stdout) else str(where))


@click.command(name="import")
@click.argument("path", metavar="FILE|FOLDER")
@click.option("--name", help="What to call it. [default: the file's name]")
@json_option
def import_command(path: str, name: str | None, as_json: bool) -> None:
    """Give a GGUF file or a checkpoint folder of your own a name.

    It stays where it is: it is checked and hashed, and your lock refers to it. Nothing is copied.
    Whoever uses it says so where it was moved or has another size; `verify` hashes it again.
    """
    from edgesppo.store.register import adopt

    with contextlib.closing(Meter(f"Hashing {Path(path).name}")) as meter:
        entry = adopt(Path(path), name, meter.update)
    if as_json:
        files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in entry.files]
        figures = {"name": entry.name, "kind": entry.kind, "location": entry.location}
        emit_json({**figures, "bytes": entry.size, "files": files})
        return
    say(f"{entry.name}: {size(entry.size)} in {entry.location}, recorded in {layers.own()}")
    say(f"Next: edgesppo chat {entry.name}")
