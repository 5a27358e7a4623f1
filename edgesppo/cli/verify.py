"""Owns `edgesppo verify`, `rm` and `gc`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from edgesppo.cli.options import emit_json, has_terminal, json_option, say, tell
from edgesppo.errors import ModelNotFound, UsageError
from edgesppo.lockfile import layers
from edgesppo.store import gc, layout, verify
from edgesppo.terminal.progress import Meter
from edgesppo.terminal.transfer import size

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.store.verify import Checked, Rest

_yes = click.option("--yes", is_flag=True, help="Do not ask.")


def entry_of(name: str) -> PinnedModel:
    """The entry of a name, or of OWNER/NAME. Raises ModelNotFound."""
    lock = layers.read()
    entry = lock.models.get(name) or lock.of_repository(name)
    if entry is None:
        raise ModelNotFound(f"{name[:80]!r} is no model of a lock: {', '.join(lock.models)}")
    return entry


@click.command(name="verify")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="All models that are here (the default).")
@json_option
def verify_command(name: str | None, everything: bool, as_json: bool) -> None:
    """Hash every file of NAME, or of all models that are here, against what is pinned.

    Exits with 1 where something is damaged, and offers to fetch that, and nothing else, anew.
    """
    if name is not None and everything:
        raise click.UsageError("give NAME or --all, not both")
    entries = [entry_of(name)] if name is not None else list(layers.read().models.values())
    found = {entry.name: _checked(entry, as_json=as_json) for entry in entries}
    damaged = {name: [c for c in checks if not c.is_sound] for name, checks in found.items()}
    damaged = {name: checks for name, checks in damaged.items() if checks}
    if name is not None and not found[entries[0].name]:
        raise ModelNotFound(f"{name} is not on this machine; get it: edgesppo pull {name}")
    if as_json:
        emit_json({"sound": not damaged, "models": {n: _json(c) for n, c in found.items() if c}})
    for entry in entries:
        if entry.name in damaged and not as_json:
            _offer(entry, damaged[entry.name])
    if damaged:
        sys.exit(1)


def _checked(entry: PinnedModel, *, as_json: bool) -> list[Checked]:
    if not verify.present(entry):
        return []
    meter = Meter(f"Hashing {entry.name}")
    with contextlib.closing(meter):
        found = list(verify.check(entry, meter.update))
    if not as_json:
        for checked in found:
            state = "sound" if checked.is_sound else "DAMAGED"
            tell(f"{state:<8} {checked.path}")
            if not checked.is_sound:
                tell(f"{'':<8} {_mismatch(checked)}")
    return found


def _mismatch(checked: Checked) -> str:
    """What it has, and what is pinned."""
    if checked.found is not None:
        return f"its hash is {checked.found}, but {checked.expected} is pinned"
    size = layout.size_of(checked.path)
    if size is not None and size != checked.size:
        return f"it has {size:,} bytes, but {checked.size:,} are pinned"
    return f"it cannot be read; {checked.expected} is pinned"


def _json(found: list[Checked]) -> list[dict[str, str | bool | None]]:
    return [
        {"path": str(c.path), "sound": c.is_sound, "expected": c.expected, "found": c.found}
        for c in found
    ]


def _offer(entry: PinnedModel, damaged: list[Checked]) -> None:
    """Say how the damaged files can be had again; on a terminal, do it."""
    if entry.shipped is not None:
        say(f"{entry.name} comes with edgesppo: install that again")
        return
    if entry.location is not None:
        say(f"{entry.name} is your own: replace the file, or import it as it is now")
        return
    flags = ["--convert", "--repair"] if any(c.is_build for c in damaged) else ["--repair"]
    say(f"To have only that anew: edgesppo pull {entry.name} {' '.join(flags)}")
    if has_terminal(sys.stdin) and click.confirm("Now?", default=False, err=True):
        from edgesppo.cli.pull import pull_command

        pull_command.main([entry.name, *flags], standalone_mode=False)


@click.command(name="rm")
@click.argument("name")
@_yes
@json_option
def rm_command(name: str, yes: bool, as_json: bool) -> None:
    """Remove the files of NAME that we fetched or made; its pin stays.

    What another entry uses stays. Of an imported model only the name goes, never your file.
    """
    entry = entry_of(name)
    if entry.shipped is not None:
        raise UsageError(f"{entry.name} comes with edgesppo, and takes {size(entry.size)}")
    if entry.location is not None:
        lock = verify.forget(entry)
        if as_json:
            emit_json({"name": entry.name, "removed": [], "freed_bytes": 0, "lock": str(lock)})
            return
        say(f"{entry.name} is forgotten in {lock}; your files in {entry.location} stay")
        for other in layers.holders(entry.name):
            say(f"{other} has a {entry.name}, too: that is what the name says from now on")
        return
    others = verify.users(entry)
    if others:
        say(f"The files of the hub that {', '.join(others)} uses, too, stay")
    rests = verify.belongings(entry)
    if not rests and not others:
        raise ModelNotFound(f"nothing of {entry.name} is on this machine")
    verify.check_free(entry)
    _ask(rests, yes=yes)
    _tell(verify.remove(entry, rests), {"name": entry.name}, as_json=as_json)


@click.command(name="gc")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--unpinned", is_flag=True, help="Also files of commits that no lock pins.")
@_yes
@json_option
def gc_command(dry_run: bool, unpinned: bool, yes: bool, as_json: bool) -> None:
    """Remove what nothing uses: unfinished downloads, converted copies whose folder is gone.

    A commit that only another project's lock pins looks unpinned from here.
    """
    rests = gc.find(unpinned=unpinned)
    for owner in gc.workers(unpinned=unpinned):
        say(f"Left alone is what {owner} is getting")
    if not rests and not as_json:
        say("Nothing to remove.")
        return
    _ask(rests, yes=yes or dry_run)
    removed = rests if dry_run else gc.sweep(rests, unpinned=unpinned)
    for rest in rests:
        if rest not in removed:
            say(f"{rest.path} stays: it is used now")
    _tell(removed, {"dry_run": dry_run}, as_json=as_json)


def _ask(rests: list[Rest], *, yes: bool) -> None:
    """Say what goes and how much it frees; on a terminal, ask."""
    for rest in rests:
        say(f"{size(rest.n_bytes):>10}  {rest.path} ({rest.what})")
    if not rests or yes or not has_terminal(sys.stdin):
        return
    total = sum(rest.n_bytes for rest in rests)
    if not click.confirm(f"Free {size(total)}?", default=False, err=True):
        say("Nothing is removed.")
        sys.exit(1)


def _tell(removed: list[Rest], figures: dict[str, str | bool], *, as_json: bool) -> None:
    total = sum(rest.n_bytes for rest in removed)
    if as_json:
        paths = [str(rest.path) for rest in removed]
        emit_json({**figures, "removed": paths, "freed_bytes": total})
    else:
        say(f"{size(total)} {'would be' if figures.get('dry_run') else 'are'} freed")
