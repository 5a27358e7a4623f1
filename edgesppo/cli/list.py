"""`edgesppo list`: the models in the locks, and which of them are on this machine."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, has_terminal, tell
from edgesppo.lockfile import layers
from edgesppo.store import imported, layout, verify
from edgesppo.system.sanitize import one_line
from edgesppo.system.units import size

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedModel


@click.command(name="list")
@json_option
def list_command(as_json: bool) -> None:
    """List the models in your locks, and which of them are on this machine.

    A file of your own that you imported is "moved" if it is no longer where it was, "changed" if
    its size differs, and "changed?" if only its time does: it is then read once when it is used.
    A model is "merged" if only a file is here that adapters are merged into.
    """
    entries = list(layers.read().models.values())
    rows = [_row(entry) for entry in entries]
    if as_json:
        emit_json({"folder": str(layout.root()), "models": rows})
        return
    width = max(len(row["name"]) for row in rows)
    columns = shutil.get_terminal_size().columns if has_terminal(sys.stdout) else sys.maxsize
    for row in rows:
        used = size(row["bytes"]) if row["bytes"] else ""
        line = (
            f"{row['name']:<{width}}  {row['state']:<9} {used:>9}  {one_line(row['description'])}"
        )
        tell(line if len(line) < columns else f"{line[: columns - 4]}...")


def _row(entry: PinnedModel) -> dict[str, Any]:
    """An entry and its state on this machine; `bytes` is what it uses on the disk."""
    build = layout.find_build(entry)
    files = verify.expected_files(entry)
    n_bytes = sum(layout.size_of(file.path) or 0 for file in files)
    path = None
    if build is not None:
        state, path = "converted", build[0]
    elif layout.is_present(entry):
        state = "changed?" if imported.may_have_changed(entry) else "here"
        path = layout.model_file(entry)
    elif entry.location is not None:
        state = "changed" if n_bytes else "moved"
    elif files and all(file.is_merged for file in files):
        state, path = "merged", files[0].path
    else:
        begun = n_bytes or (entry.is_pinned and layout.model_dir(entry).is_dir())
        state = "in part" if begun else "absent"
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
