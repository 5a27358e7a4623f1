"""What `rm` and `gc` share: list what will be removed, ask, and report what was removed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edgesppo.cli.output import emit_json, has_terminal, say
from edgesppo.errors import UsageError
from edgesppo.system.units import size

if TYPE_CHECKING:
    from edgesppo.store.remove import Removable

yes_option = click.option(
    "--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on."
)


def confirm_removal(items: list[Removable], *, yes: bool) -> None:
    """List what will be removed and its size, and ask; exits with 1 on no.

    Raises UsageError where there is no terminal to ask on.
    """
    asks = bool(items) and not yes
    for item in items:
        say(f"{size(item.n_bytes):>10}  {item.path} ({item.what})", matters=asks)
    if not asks:
        return
    total = sum(item.n_bytes for item in items)
    if not has_terminal(sys.stdin):
        raise UsageError(
            f"nothing was removed: there is no terminal to ask on; add --yes to free {size(total)}"
        )
    if not click.confirm(f"Free {size(total)}?", default=False, err=True):
        say("Nothing was removed.", matters=True)
        sys.exit(1)


def report_removed(
    removed: list[Removable], figures: dict[str, str | bool], *, as_json: bool
) -> None:
    """Print how much was freed, or would be; as JSON with the removed paths and `figures`."""
    total = sum(item.n_bytes for item in removed)
    if as_json:
        paths = [str(item.path) for item in removed]
        emit_json({**figures, "removed": paths, "freed_bytes": total})
    else:
        say(f"{size(total)} {'would be' if figures.get('dry_run') else 'were'} freed")
