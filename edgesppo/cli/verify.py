"""`edgesppo verify`: check the files on this machine against their pinned hashes."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgesppo.cards.published import how_to_get
from edgesppo.cli.completion import complete_names
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, has_terminal, say, tell
from edgesppo.errors import ModelNotFound, UsageError
from edgesppo.lockfile import layers
from edgesppo.store import layout, verify
from edgesppo.store.repair import merge_again
from edgesppo.system.shell import shell_word
from edgesppo.terminal.progress import Meter

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.store.verify import CheckedFile


@click.command(name="verify")
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--all", "everything", is_flag=True, help="All models on this machine (default).")
@json_option
def verify_command(name: str | None, everything: bool, as_json: bool) -> None:
    """Hash every file of NAME, or of all models on this machine, and compare with the pinned hash.

    If a file is damaged, offers to download or convert it again, and the exit code is 1.
    """
    if name is not None and everything:
        raise click.UsageError("give NAME or --all, not both")
    if name is not None and Path(name).is_file() and name not in layers.read().models:
        raise UsageError(
            f"{name} is a file, expected a name from models.lock; give it one, and its hash is"
            f" recorded: edgesppo import {shell_word(name)}"
        )
    entries = [layers.find(name)] if name is not None else list(layers.read().models.values())
    found = {entry.name: _checked(entry, as_json=as_json) for entry in entries}
    damaged = {name: [c for c in checks if not c.is_sound] for name, checks in found.items()}
    damaged = {name: checks for name, checks in damaged.items() if checks}
    if name is not None and not found[entries[0].name]:
        how = how_to_get(entries[0])
        raise ModelNotFound(f"{name} is not on this machine; to get it: {how}")
    if as_json:
        emit_json({"sound": not damaged, "models": {n: _json(c) for n, c in found.items() if c}})
    for entry in entries:
        if entry.name in damaged and not as_json:
            _offer(entry, damaged[entry.name])
    if damaged:
        sys.exit(1)


def _checked(entry: PinnedModel, *, as_json: bool) -> list[CheckedFile]:
    if not verify.expected_files(entry):
        return []
    meter = Meter(f"Hashing {entry.name}")
    with contextlib.closing(meter):
        found = list(verify.check(entry, meter.update))
    if not as_json:
        for checked in found:
            state = "ok" if checked.is_sound else "DAMAGED"
            tell(f"{state:<8} {checked.path}")
            if not checked.is_sound:
                tell(f"{'':<8} {_mismatch(checked)}")
    return found


def _mismatch(checked: CheckedFile) -> str:
    """How the file differs from what is pinned."""
    if checked.found is not None:
        return f"its hash is {checked.found}, but {checked.expected} is pinned"
    size = layout.size_of(checked.path)
    if size is not None and size != checked.size:
        return f"it has {size:,} bytes, but {checked.size:,} are pinned"
    return f"it cannot be read; {checked.expected} is pinned"


def _json(found: list[CheckedFile]) -> list[dict[str, str | bool | None]]:
    return [
        {"path": str(c.path), "sound": c.is_sound, "expected": c.expected, "found": c.found}
        for c in found
    ]


def _offer(entry: PinnedModel, damaged: list[CheckedFile]) -> None:
    """Print how to replace the damaged files; on a terminal, offer to do it."""
    if entry.shipped is not None:
        say(f"{entry.name} is part of edgesppo: install edgesppo again")
        return
    if entry.location is not None:
        say(f"{entry.name} is your own file: restore it, or import it as it is now")
        return
    if any(c.is_merged for c in damaged):
        say(f"To merge the adapter DIR again: {merge_again(entry)}")
        damaged = [c for c in damaged if not c.is_merged]
    if not damaged:
        return
    flags = ["--convert", "--repair"] if any(c.is_build for c in damaged) else ["--repair"]
    asks = has_terminal(sys.stdin)
    command = f"edgesppo pull {entry.name} {' '.join(flags)}"
    say(f"To replace only the damaged files: {command}", matters=asks)
    if asks and click.confirm("Do that now?", default=False, err=True):
        from edgesppo.cli.pull import pull_command

        pull_command.main([entry.name, *flags], standalone_mode=False)
