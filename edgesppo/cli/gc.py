"""`edgesppo gc`: remove files that nothing uses any more."""

from __future__ import annotations

import click

from edgesppo.cli.options import json_option
from edgesppo.cli.output import say
from edgesppo.cli.removal import confirm_removal, report_removed, yes_option
from edgesppo.store import gc


@click.command(name="gc")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@click.option("--unpinned", is_flag=True, help="Also remove files of commits that no lock pins.")
@yes_option
@json_option
def gc_command(dry_run: bool, unpinned: bool, yes: bool, as_json: bool) -> None:
    """Remove unfinished downloads and conversions, and copies of folders that no longer exist.

    With --unpinned: a commit that is pinned only in another project's lock counts as unpinned.
    """
    items = gc.find_garbage(unpinned=unpinned)
    for owner in gc.owners(unpinned=unpinned):
        say(f"Files that {owner} is working on are kept")
    if not items and not as_json:
        say("Nothing to remove.")
        return
    confirm_removal(items, yes=yes or dry_run)
    removed = items if dry_run else gc.collect(items, unpinned=unpinned)
    for item in items:
        if item not in removed:
            say(f"{item.path} is kept: it is in use now")
    report_removed(removed, {"dry_run": dry_run}, as_json=as_json)
