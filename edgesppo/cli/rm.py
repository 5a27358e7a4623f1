"""`edgesppo rm`: remove a model's files."""

from __future__ import annotations

import click

from edgesppo.cli.completion import complete_names
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say
from edgesppo.cli.removal import confirm_removal, report_removed, yes_option
from edgesppo.errors import ModelNotFound, UsageError
from edgesppo.lockfile import layers
from edgesppo.store import remove
from edgesppo.system.units import size


@click.command(name="rm")
@click.argument("name", shell_complete=complete_names)
@yes_option
@json_option
def rm_command(name: str, yes: bool, as_json: bool) -> None:
    """Remove the downloaded and converted files of NAME. It remains pinned in the lock.

    Files that another model uses are kept. For an imported model, only the name is removed, never
    your file.
    """
    entry = layers.find(name)
    if entry.shipped is not None:
        raise UsageError(
            f"{entry.name} is part of edgesppo ({size(entry.size)}) and cannot be removed; name"
            " another model, as listed by edgesppo list"
        )
    if entry.location is not None:
        lock = remove.forget(entry)
        if as_json:
            emit_json({"name": entry.name, "removed": [], "freed_bytes": 0, "lock": str(lock)})
            return
        say(f"{entry.name} was removed from {lock}; your files in {entry.location} are kept")
        for other in layers.locks_with(entry.name):
            say(f"{other} has an entry {entry.name}, too: from now on, the name refers to that")
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
