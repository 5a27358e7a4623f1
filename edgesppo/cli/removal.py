"""What `rm` and `gc` share: saying what would go, asking, telling what went."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edgesppo.cli.output import emit_json, has_terminal, say
from edgesppo.system.units import size

if TYPE_CHECKING:
    from edgesppo.store.remove import Removable

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def ask_to_remove(rests: list[Removable], *, yes: bool) -> None:
    """Say what goes and how much it frees; on a terminal, ask."""
    for rest in rests:
        say(f"{size(rest.n_bytes):>10}  {rest.path} ({rest.what})")
    if not rests or yes or not has_terminal(sys.stdin):
        return
    total = sum(rest.n_bytes for rest in rests)
    if not click.confirm(f"Free {size(total)}?", default=False, err=True):
        say("Nothing is removed.")
        sys.exit(1)


def tell_removed(
    removed: list[Removable], figures: dict[str, str | bool], *, as_json: bool
) -> None:
    """What was removed, or would be, and how much that frees."""
    total = sum(rest.n_bytes for rest in removed)
    if as_json:
        paths = [str(rest.path) for rest in removed]
        emit_json({**figures, "removed": paths, "freed_bytes": total})
    else:
        say(f"{size(total)} {'would be' if figures.get('dry_run') else 'are'} freed")
