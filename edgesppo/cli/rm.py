"""`edgesppo rm`: remove a model's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgesppo.cli.completion import complete_names
from edgesppo.cli.options import json_option
from edgesppo.cli.output import say
from edgesppo.cli.removal import confirm_removal, report_removed, yes_option
from edgesppo.errors import ModelNotFound, UsageError
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT
from edgesppo.store import layout, remove
from edgesppo.system.paths import expand_user
from edgesppo.system.units import size

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel


@click.command(name="rm")
@click.argument("name", metavar="NAME|FOLDER", shell_complete=complete_names)
@yes_option
@json_option
def rm_command(name: str, yes: bool, as_json: bool) -> None:
    """Remove the downloaded and converted files of NAME. It remains pinned in the lock.

    Files that another model uses are kept. Of an imported model the name is removed, never your
    files; of an imported checkpoint, and of a FOLDER, also the copies that were converted from it.
    """
    folder = _folder(name)
    if folder is not None:
        _remove_copies(folder, name, yes=yes, as_json=as_json)
        return
    entry = layers.find(name)
    if entry.shipped is not None:
        raise UsageError(
            f"{entry.name} is part of edgesppo ({size(entry.size)}) and cannot be removed; name"
            " another model, as listed by edgesppo list"
        )
    if entry.location is not None:
        _remove_import(entry, yes=yes, as_json=as_json)
        return
    others = remove.sharing(entry)
    if others:
        say(f"Files that are also used by {', '.join(others)} are kept")
    items = remove.removable(entry)
    if not items and not others:
        raise ModelNotFound(
            f"{entry.name} has no files on this machine, so there is nothing to remove"
        )
    remove.check_free(entry)
    confirm_removal(items, yes=yes)
    report_removed(remove.remove(entry, items), {"name": entry.name}, as_json=as_json)


def _folder(name: str) -> Path | None:
    """The checkpoint folder that is meant; None for a name that a lock has, or no folder."""
    lock = layers.read()
    is_known = name in lock.models or lock.of_repository(name)
    path = expand_user("the folder", name)
    is_meant = name and not is_known  # an empty path would be the working folder
    return path if is_meant and path.is_dir() else None


def _remove_copies(folder: Path, name: str, *, yes: bool, as_json: bool) -> None:
    items = remove.removable_copies(folder)
    if not items:
        raise ModelNotFound(
            f"no copy of {folder} was converted, so there is nothing to remove; the folder itself"
            " is yours, and is kept"
        )
    confirm_removal(items, yes=yes)
    remove.remove_copies(folder, items)
    report_removed(items, {"name": name}, as_json=as_json)


def _remove_import(entry: PinnedModel, *, yes: bool, as_json: bool) -> None:
    folder = layout.model_dir(entry)
    users = [m for m in layers.all_entries() if m.is_pinned and layout.model_dir(m) == folder]
    is_alone = entry.kind == CHECKPOINT and len(users) == 1
    items = remove.removable_copies(folder) if is_alone else []
    confirm_removal(items, yes=yes)
    remove.remove_copies(folder, items)
    lock = remove.forget(entry)
    if not as_json:
        say(f"{entry.name} was removed from {lock}; your files in {entry.location} are kept")
        for other in layers.locks_with(entry.name):
            say(f"{other} has an entry {entry.name}, too: from now on, the name refers to that")
    if items or as_json:
        report_removed(items, {"name": entry.name, "lock": str(lock)}, as_json=as_json)
