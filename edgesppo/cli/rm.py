"""`edgesppo rm`: remove a model's files."""

from __future__ import annotations

import click

from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say
from edgesppo.cli.removal import ask_to_remove, tell_removed, yes_option
from edgesppo.errors import ModelNotFound, UsageError
from edgesppo.lockfile import layers
from edgesppo.store import remove
from edgesppo.system.units import size


@click.command(name="rm")
@click.argument("name")
@yes_option
@json_option
def rm_command(name: str, yes: bool, as_json: bool) -> None:
    """Remove the files of NAME that we fetched or made; its pin stays.

    What another entry uses stays. Of an imported model only the name goes, never your file.
    """
    entry = layers.find(name)
    if entry.shipped is not None:
        raise UsageError(f"{entry.name} comes with edgesppo, and takes {size(entry.size)}")
    if entry.location is not None:
        lock = remove.forget(entry)
        if as_json:
            emit_json({"name": entry.name, "removed": [], "freed_bytes": 0, "lock": str(lock)})
            return
        say(f"{entry.name} is forgotten in {lock}; your files in {entry.location} stay")
        for other in layers.locks_with(entry.name):
            say(f"{other} has a {entry.name}, too: that is what the name says from now on")
        return
    others = remove.users(entry)
    if others:
        say(f"The files of the hub that {', '.join(others)} uses, too, stay")
    rests = remove.removable(entry)
    if not rests and not others:
        raise ModelNotFound(f"nothing of {entry.name} is on this machine")
    remove.check_free(entry)
    ask_to_remove(rests, yes=yes)
    tell_removed(remove.remove(entry, rests), {"name": entry.name}, as_json=as_json)
