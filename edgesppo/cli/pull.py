"""`edgesppo pull`: download a model from the hub, after showing its size, licence and needs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from edgesppo.cards.published import how_to_get
from edgesppo.cli.completion import complete_names
from edgesppo.cli.lock import described
from edgesppo.cli.options import adapter_option, json_option
from edgesppo.cli.output import emit_json, has_terminal, hashing, say, say_notices
from edgesppo.errors import UsageError
from edgesppo.hub import license_claims
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT
from edgesppo.store import consent, layout, pull
from edgesppo.store import repair as repair_
from edgesppo.store.build import recipe_with
from edgesppo.store.locate import of_entry
from edgesppo.system.hardware import available_memory
from edgesppo.system.sanitize import one_line
from edgesppo.system.shell import shell_word
from edgesppo.system.signals import raise_on_termination
from edgesppo.system.units import size
from edgesppo.terminal.format import labelled
from edgesppo.terminal.progress import retry_notices, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.store.verify import CheckedFile


@click.command(name="pull")
@click.argument("model", metavar="NAME|OWNER/NAME[@COMMIT]", shell_complete=complete_names)
@click.option(
    "--convert",
    is_flag=True,
    help="Convert to Q4_K_M while downloading, shard by shard, and keep only the GGUF file.",
)
@adapter_option("With --convert: merge a PEFT LoRA adapter; repeatable.")
@click.option("--accept-license", is_flag=True, help="Accept the licence shown for this model.")
@click.option("--repair", is_flag=True, help="Verify the files here, and replace damaged ones.")
@json_option
def pull_command(
    model: str,
    convert: bool,
    adapters: tuple[str, ...],
    accept_license: bool,
    repair: bool,
    as_json: bool,
) -> None:
    """Download a model from the hub at its pinned commit, except for files that are already here.

    First shows how large the model is, its licence, and whether it fits on this machine. Until you
    accept the licence, only files that describe the model are read: its card, LICENSE, config.json
    and the first 64 kB of a GGUF file.

    If interrupted, run the same command again to resume the download. A model that is not pinned
    yet is pinned to its current commit.
    """
    started, fetched = time.monotonic(), 0
    click.get_current_context().with_resource(retry_notices())
    click.get_current_context().with_resource(raise_on_termination())
    request = pull.parse_request(model)
    _check_adapters(request.entry, adapters, convert=convert)
    entry = pull.pin(request) if request.entry.is_pinned else request.entry
    if repair and entry.repository is not None and entry.is_pinned:
        fetched, rebuild = _repair(entry, accept=accept_license)
        convert = convert or rebuild
    if repair and entry.location is not None:
        with hashing(entry) as on_hash:
            repair_.check_import(entry, on_hash)
    path = _find(entry, adapters, convert=convert)
    if path is None:
        entry = pull.pin(request)
        if not request.entry.is_pinned:
            where = layers.write_target()
            say(f"{entry.name} is now pinned to commit {entry.revision} in {where}")
        fetched += _get(entry, adapters, convert=convert, accept=accept_license)
        entry = layers.read().models[entry.name]
        path = _find(entry, adapters, convert=convert) or of_entry(entry).path
    if convert:
        _note_no_conversion(entry)
    if as_json:
        seconds = time.monotonic() - started
        figures = {"path": str(path), "fetched_bytes": fetched, "seconds": seconds}
        emit_json({**described(entry), **figures})
    else:
        say(f"{entry.name} is ready: {path}")
        say(f"Next: edgesppo chat {shell_word(str(path)) if adapters else entry.name}")


def _check_adapters(entry: PinnedModel, adapters: tuple[str, ...], *, convert: bool) -> None:
    """Raise UsageError where adapters cannot be merged, before anything is downloaded."""
    if not adapters:
        return
    if not convert:
        raise UsageError("--adapter merges while it converts; add --convert")
    if entry.kind != CHECKPOINT:
        raise UsageError(
            f"{entry.name} is a GGUF file, and adapters are merged into a checkpoint; pull the"
            " checkpoint that it was made from"
        )
    if entry.repository is None:
        raise UsageError(
            f"{entry.name} is not a model of the hub; to merge an adapter into it: edgesppo convert"
            f" {entry.name} --adapter {shell_word(adapters[0])} -o OUT.gguf"
        )
    recipe_with(adapters)


def _find(entry: PinnedModel, adapters: tuple[str, ...], *, convert: bool) -> Path | None:
    """The file or folder that was asked for, if it is here."""
    if not adapters:
        return pull.find_local(entry, convert=convert)
    found = layout.find_build(entry, recipe_with(adapters))
    return None if found is None else found[0]


def _note_no_conversion(entry: PinnedModel) -> None:
    """Say so if --convert has no effect on this entry."""
    if entry.kind != CHECKPOINT:
        say(f"{entry.name} is already a GGUF file, so --convert has no effect")
    elif entry.repository is None:
        say(f"{entry.name} is not a model of the hub, so --convert has no effect")


def _repair(entry: PinnedModel, *, accept: bool) -> tuple[int, bool]:
    """Replace damaged files; returns the bytes fetched, and whether to convert again."""
    with hashing(entry) as on_hash:
        found = repair_.repair(
            entry,
            on_hash=on_hash,
            on_wait=_waiting,
            on_damaged=_tell_damaged,
            before_fetch=lambda: _need_license(entry, accept=accept),
        )
    if not found.damaged:
        say(f"No file of {entry.name} on this machine is damaged")
    fetched = _get(entry, (), convert=False, accept=accept) if found.needs_fetch else 0
    return fetched, found.needs_build


def _tell_damaged(checked: CheckedFile) -> None:
    then = (
        "it will be removed and " + ("converted" if checked.is_build else "downloaded") + " again"
    )
    if checked.is_merged:
        then = "it will be removed; merge its adapters again with --adapter"
    say(f"{checked.path} is damaged: {then}")


def _get(entry: PinnedModel, adapters: tuple[str, ...], *, convert: bool, accept: bool) -> int:
    """Show the estimate, ask for the licence, and download; returns the bytes fetched."""
    if entry.repository is None:
        of_entry(entry)  # raises the error that says what is wrong with it
    convert = convert and entry.kind == CHECKPOINT
    asks = not accept and not consent.is_given(entry) and _can_ask()
    for label, line in _estimated(entry, convert=convert):
        say(labelled(label, line), matters=asks)
    _need_license(entry, accept=accept)
    return _make(entry, adapters) if convert else _fetch(entry)


def _fetch(entry: PinnedModel) -> int:
    missing = layout.missing_files(entry)
    n_bytes, present = pull.bytes_to_fetch(entry), entry.size - sum(file.size for file in missing)
    with transfer(f"Fetching {entry.name}", entry.size, present) as on_fetch:
        pull.pull(entry, on_fetch=on_fetch, on_wait=_waiting)
    return n_bytes


def _make(entry: PinnedModel, adapters: tuple[str, ...]) -> int:
    from edgesppo.store.build import build
    from edgesppo.terminal.progress import conversion_progress, fetch_progress

    counted: dict[str, int] = {}
    title = f"Converting {entry.name} to {layout.RECIPE}"
    with conversion_progress(title) as report, fetch_progress() as shown:

        def on_fetch(file: str, done: int, total: int) -> None:
            counted[file] = done
            shown(file, done, total)

        build(entry, adapters=adapters, on_convert=report, on_fetch=on_fetch, on_wait=_waiting)
    say_notices()
    return sum(counted.values())


def _waiting(owner: str) -> None:
    say(f"Waiting for {owner}, which is downloading or converting the same model")


def _estimated(entry: PinnedModel, *, convert: bool) -> Iterator[tuple[str, str]]:
    """Lines on size, licence, disk and memory, each with its label. Raises OutputError if the
    disk is too small.
    """
    from edgesppo.store import estimate

    needs = estimate.needs(entry, convert=convert)
    yield "model", one_line(entry.description)
    yield "from", f"{entry.repository} at {entry.revision}"
    n = len(entry.files)
    whole = f"{size(entry.size)} in {n} file{'s' if n > 1 else ''}"
    left = f"{size(needs.to_fetch)} still to download" if needs.to_fetch else "all downloaded"
    yield "size", whole if needs.to_fetch == entry.size else f"{whole}, {left}"
    yield "licence", license_claims.line(entry)
    made = f"about {size(needs.file)}"
    room = "" if needs.free is None else f", {size(needs.free)} are free in {layout.root()}"
    if convert:
        yield "disk", f"{made} when converted, up to {size(needs.disk)} until then{room}"
    else:
        later = f", {made} more when it is first used" if entry.kind == CHECKPOINT else ""
        yield "disk", f"{size(needs.to_fetch)}{later}{room}"
        if entry.kind == CHECKPOINT and needs.to_fetch == entry.size:  # nothing is here yet
            yield "or less", f"to keep only {made}: {how_to_get(entry)}"
    yield "memory", _memory(needs.file, needs.memory)
    pull.check_space(needs.disk)


def _memory(weights: int, plan: MemoryPlan | None) -> str:
    """The memory needed to load it, the memory that is free, and whether that is enough."""
    free = available_memory() if plan is None else plan.available
    room = "" if free is None else f", {size(free)} are free"
    if plan is None:
        fits = "perhaps" if free is None or weights <= free else "no: use a smaller model"
        return f"at least {size(weights)}, for the weights{room}; fits: {fits}"
    fits = "yes" if plan.fits else f"no: {plan.advice()}"
    return f"about {size(plan.total)} with {plan.n_ctx:,} tokens of context{room}; fits: {fits}"


def _can_ask() -> bool:
    return has_terminal(sys.stdin) and has_terminal(sys.stderr)


def _need_license(entry: PinnedModel, *, accept: bool) -> None:
    """Ask the user to accept the licence if necessary; raises UsageError if it is not accepted."""
    if consent.is_given(entry):
        return
    if not accept and _can_ask():
        title = license_claims.title(entry)
        question = f"Do you accept the licence {title} of {entry.repository}?"
        accept = click.confirm(question, default=False, err=True)
    if not accept:
        raise consent.refusal(entry)
    consent.give(entry)
