"""`edgesppo gc`: remove what nothing uses any more."""

from __future__ import annotations

import click

from edgesppo.cli.options import json_option
from edgesppo.cli.output import say
from edgesppo.cli.removal import ask_to_remove, tell_removed, yes_option
from edgesppo.store import gc


@click.command(name="gc")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--unpinned", is_flag=True, help="Also files of commits that no lock pins.")
@yes_option
@json_option
def gc_command(dry_run: bool, unpinned: bool, yes: bool, as_json: bool) -> None:
    """Remove what nothing uses: unfinished downloads, converted copies whose folder is gone.

    A commit that only another project's lock pins looks unpinned from here.
    """
    rests = gc.find_garbage(unpinned=unpinned)
    for owner in gc.workers(unpinned=unpinned):
        say(f"Left alone is what {owner} is getting")
    if not rests and not as_json:
        say("Nothing to remove.")
        return
    ask_to_remove(rests, yes=yes or dry_run)
    removed = rests if dry_run else gc.collect(rests, unpinned=unpinned)
    for rest in rests:
        if rest not in removed:
            say(f"{rest.path} stays: it is used now")
    tell_removed(removed, {"dry_run": dry_run}, as_json=as_json)
