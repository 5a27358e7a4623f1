"""`edgesppo pull`: get a model from the hub; what is said and asked before the first byte."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from edgesppo.cli.lock import described
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, has_terminal, hashing, say
from edgesppo.hub import license_claims
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT
from edgesppo.store import consent, layout, pull
from edgesppo.store import repair as repair_
from edgesppo.store.locate import of_entry
from edgesppo.system.hardware import available_memory
from edgesppo.system.sanitize import one_line
from edgesppo.system.units import size
from edgesppo.terminal.format import labelled
from edgesppo.terminal.progress import retry_notices, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.store.verify import CheckedFile


@click.command(name="pull")
@click.argument("model", metavar="NAME|OWNER/NAME[@COMMIT]")
@click.option("--convert", is_flag=True, help="Keep the Q4_K_M file only: fetched shard by shard.")
@click.option("--accept-license", is_flag=True, help="Accept what the repository claims, once.")
@click.option("--repair", is_flag=True, help="Hash what is here, and fetch anew what is damaged.")
@json_option
def pull_command(
    model: str, convert: bool, accept_license: bool, repair: bool, as_json: bool
) -> None:
    """Get a model from the hub, as it is pinned; what is here already costs nothing.

    Says before the first byte how large it is, under which licence, and whether it fits here.
    Until the licence is accepted only what describes the model is read: its card, LICENSE,
    config.json, the first 64 kB of a GGUF file.
    Interrupted, the same command goes on inside the files. A model that no commit is pinned for
    yet is pinned to what it is now.
    """
    started, fetched = time.monotonic(), 0
    click.get_current_context().with_resource(retry_notices())
    asked = pull.wanted(model)
    entry = pull.pin(asked) if asked.entry.is_pinned else asked.entry
    if repair and entry.repository is not None and entry.is_pinned:
        fetched, remake = _repair(entry, accept=accept_license)
        convert = convert or remake
    if repair and entry.location is not None:
        with hashing(entry) as hashed:
            repair_.check_own(entry, hashed)
    there = pull.place_of(entry, convert=convert)
    if there is None:
        entry = pull.pin(asked)
        if not asked.entry.is_pinned:
            where = layers.write_target()
            say(f"{entry.name} is pinned to what it is now: {entry.revision}, in {where}")
        fetched += _get(entry, convert=convert, accept=accept_license)
        there = of_entry(layers.read().models[entry.name]).path
    if convert and (entry.kind != CHECKPOINT or entry.repository is None):
        why = "is a GGUF file already" if entry.kind != CHECKPOINT else "is no model of the hub"
        say(f"{entry.name} {why}, so --convert does nothing")
    if as_json:
        seconds = time.monotonic() - started
        figures = {"path": str(there), "fetched_bytes": fetched, "seconds": seconds}
        emit_json({**described(entry), **figures})
    else:
        say(f"{entry.name} is here: {there}")
        say(f"Next: edgesppo chat {entry.name}")


def _repair(entry: PinnedModel, *, accept: bool) -> tuple[int, bool]:
    """Fetch what is damaged; how many bytes, and whether a converted file is to be made again."""
    with hashing(entry) as hashed:
        found = repair_.repair(
            entry,
            hashed=hashed,
            on_wait=_waiting,
            on_damaged=_tell_damaged,
            before_fetch=lambda: _need_license(entry, accept=accept),
        )
    if not found.damaged:
        say(f"Nothing of {entry.name} that is here is damaged")
    fetched = _get(entry, convert=False, accept=accept) if found.refetch else 0
    return fetched, found.remake


def _tell_damaged(checked: CheckedFile) -> None:
    again = "made" if checked.is_build else "fetched"
    say(f"{checked.path} is damaged: it is removed, and {again} again")


def _get(entry: PinnedModel, *, convert: bool, accept: bool) -> int:
    """Say what is to come, ask, fetch; how many bytes were fetched."""
    if entry.repository is None:
        of_entry(entry)  # says what became of it
    convert = convert and entry.kind == CHECKPOINT
    for label, line in _estimated(entry, convert=convert):
        say(labelled(label, line))
    _need_license(entry, accept=accept)
    return _make(entry) if convert else _fetch(entry)


def _fetch(entry: PinnedModel) -> int:
    rest = layout.missing_files(entry)
    n_bytes, there = pull.left(entry), entry.size - sum(file.size for file in rest)
    with transfer(f"Fetching {entry.name}", entry.size, there) as fetched:
        pull.pull(entry, fetched=fetched, on_wait=_waiting)
    return n_bytes


def _make(entry: PinnedModel) -> int:
    from edgesppo.store.build import build
    from edgesppo.terminal.progress import conversion_progress, fetch_progress

    counted: dict[str, int] = {}
    title = f"Converting {entry.name} to {layout.RECIPE}"
    with conversion_progress(title) as report, fetch_progress() as shown:

        def fetched(file: str, done: int, total: int) -> None:
            counted[file] = done
            shown(file, done, total)

        build(entry, progress=report, fetched=fetched, on_wait=_waiting)
    return sum(counted.values())


def _waiting(owner: str) -> None:
    say(f"Waiting for {owner}, which is getting the same model")


def _estimated(entry: PinnedModel, *, convert: bool) -> Iterator[tuple[str, str]]:
    """Size, licence, disk and memory, each with its label."""
    from edgesppo.store import estimate

    needs = estimate.needs(entry, convert=convert)
    yield "model", one_line(entry.description)
    yield "from", f"{entry.repository} at {entry.revision}"
    n = len(entry.files)
    whole = f"{size(entry.size)} in {n} file{'s' if n > 1 else ''}"
    rest = f"{size(needs.left)} of them still to come" if needs.left else "all of them here"
    yield "size", whole if needs.left == entry.size else f"{whole}, {rest}"
    yield "licence", license_claims.line(entry)
    made = f"about {size(needs.weights)}"
    room = "" if needs.free is None else f", {size(needs.free)} are free in {layout.root()}"
    if convert:
        yield "disk", f"{made} once it is converted, {size(needs.disk)} until then{room}"
    else:
        later = f", {made} more once it is used" if entry.kind == CHECKPOINT else ""
        yield "disk", f"{size(needs.left)}{later}{room}"
    yield "memory", _memory(needs.weights, needs.memory)
    pull.check_space(needs.disk)


def _memory(weights: int, plan: MemoryPlan | None) -> str:
    """What loading it takes, what there is, and whether that is enough."""
    free = available_memory() if plan is None else plan.available
    room = "" if free is None else f", {size(free)} are free"
    if plan is None:
        fits = "perhaps" if free is None or weights <= free else "no: use a smaller model"
        return f"at least {size(weights)}, for its weights{room}; fits: {fits}"
    fits = "yes" if plan.fits else f"no: {plan.advice()}"
    return f"about {size(plan.total)} with {plan.n_ctx:,} tokens of context{room}; fits: {fits}"


def _need_license(entry: PinnedModel, *, accept: bool) -> None:
    """Have what the repository claims accepted, once; raises UsageError where it is not."""
    if consent.is_given(entry):
        return
    if not accept and has_terminal(sys.stdin) and has_terminal(sys.stderr):
        title = license_claims.title(entry)
        question = f"Do you accept the licence {title} of {entry.repository}?"
        accept = click.confirm(question, default=False, err=True)
    if not accept:
        raise consent.refusal(entry)
    consent.give(entry)
