"""Owns `edgesppo pull` and `edgesppo lock`: what is said and asked before the first byte comes."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.options import emit_json, has_terminal, json_option, say, tell
from edgesppo.errors import BadModelFile, UsageError
from edgesppo.hub import license_claims
from edgesppo.hub.repository import endpoint
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT
from edgesppo.store import commit_lock, layout, pull, user_state, verify
from edgesppo.store.locate import of_entry
from edgesppo.system.fs import Files
from edgesppo.system.hardware import available_memory
from edgesppo.system.sanitize import one_line
from edgesppo.terminal.progress import Meter
from edgesppo.terminal.retries import retries_told
from edgesppo.terminal.transfer import labelled, size, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.planning.memory_plan import Plan


@click.command(name="lock")
@click.argument("model", metavar="NAME|OWNER/NAME[@REVISION]")
@click.option("--update", is_flag=True, help="Pin it anew: to REVISION, else to main as it is now.")
@click.option("--name", help="What to call a repository. [default: its own name]")
@click.option("--file", metavar="PATH", help="Which GGUF file, where the repository has several.")
@json_option
def lock_command(
    model: str, update: bool, name: str | None, file: str | None, as_json: bool
) -> None:
    """Pin a model of the hub: its commit, and every file's size and hash.

    A branch or tag is asked for once, and the commit that it is now is written to your own lock,
    or to --lock FILE. What is pinned stays as it is, and nothing is asked, without --update.
    """
    asked = pull.wanted(model, name, may_begin=True)
    before = asked.entry
    with retries_told():
        entry = pull.pin(asked, update=update, file=file, ours=True)
    if as_json:
        emit_json({**_described(entry), "before": before.revision, "lock": str(layers.own())})
        return
    for line in _pinned_lines(before, entry):
        tell(line)


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
    click.get_current_context().with_resource(retries_told())
    asked = pull.wanted(model)
    entry = pull.pin(asked) if asked.entry.is_pinned else asked.entry
    if repair and entry.repository is not None and entry.is_pinned:
        fetched, remake = _repair(entry, accept=accept_license)
        convert = convert or remake
    if repair and entry.location is not None:
        _check_own(entry)
    there = _there(entry, convert=convert)
    if there is None:
        entry = pull.pin(asked)
        if not asked.entry.is_pinned:
            say(f"{entry.name} is pinned to what it is now: {entry.revision}, in {layers.own()}")
        fetched += _get(entry, convert=convert, accept=accept_license)
        there = of_entry(layers.read().models[entry.name]).path
    if convert and (entry.kind != CHECKPOINT or entry.repository is None):
        why = "is a GGUF file already" if entry.kind != CHECKPOINT else "is no model of the hub"
        say(f"{entry.name} {why}, so --convert does nothing")
    if as_json:
        seconds = time.monotonic() - started
        figures = {"path": str(there), "fetched_bytes": fetched, "seconds": seconds}
        emit_json({**_described(entry), **figures})
    else:
        say(f"{entry.name} is here: {there}")
        say(f"Next: edgesppo chat {entry.name}")


def _check_own(entry: PinnedModel) -> None:
    """Refuse an import that is no longer what was imported: nobody else has it."""
    with contextlib.closing(Meter(f"Hashing {entry.name}")) as meter:
        damaged = [c for c in verify.check(entry, meter.update) if not c.is_sound]
    for checked in damaged:
        raise BadModelFile(
            f"{checked.path} has the hash {checked.found or 'of no readable file of its size'}, but"
            f" {checked.expected} was imported as {entry.name}; it is your own: put the file back,"
            f" or edgesppo rm {entry.name} and import it as it is now"
        )


def _repair(entry: PinnedModel, *, accept: bool) -> tuple[int, bool]:
    """Fetch what is damaged; how many bytes, and whether a converted file is to be made again.

    Nothing goes before it is certain that it may be had again.
    """
    with commit_lock.alone(str(entry.revision), _waiting, Files()):
        with contextlib.closing(Meter(f"Hashing {entry.name}")) as meter:
            damaged = [c for c in verify.check(entry, meter.update) if not c.is_sound]
        if not damaged:
            say(f"Nothing of {entry.name} that is here is damaged")
            return 0, False
        remake = any(checked.is_build for checked in damaged)
        refetch = not all(checked.is_build for checked in damaged)
        if refetch or not layout.is_there(entry):
            pull.check_online()
            _need_licence(entry, accept=accept)
        for checked in damaged:
            again = "is made again" if checked.is_build else "comes anew"
            say(f"{checked.path} is damaged: it goes, and {again}")
        verify.discard(damaged)
    return (_get(entry, convert=False, accept=accept) if refetch else 0), remake


def _there(entry: PinnedModel, *, convert: bool) -> Path | None:
    """Where what is wanted of the entry lies, if it does."""
    made = layout.build(entry)
    if made is not None:
        return made[0]
    to_convert = convert and entry.kind == CHECKPOINT and entry.repository is not None
    return layout.model_file(entry) if layout.is_there(entry) and not to_convert else None


def _get(entry: PinnedModel, *, convert: bool, accept: bool) -> int:
    """Say what is to come, ask, fetch; how many bytes were fetched."""
    if entry.repository is None:
        of_entry(entry)  # says what became of it
    convert = convert and entry.kind == CHECKPOINT
    for label, line in _forecast(entry, convert=convert):
        say(labelled(label, line))
    _need_licence(entry, accept=accept)
    return _make(entry) if convert else _fetch(entry)


def _fetch(entry: PinnedModel) -> int:
    rest = layout.lacking(entry)
    n_bytes, there = pull.left(entry), entry.size - sum(file.size for file in rest)
    with transfer(f"Fetching {entry.name}", entry.size, there) as fetched:
        pull.pull(entry, fetched=fetched, on_wait=_waiting)
    return n_bytes


def _make(entry: PinnedModel) -> int:
    from edgesppo.store.build import make
    from edgesppo.terminal.progress import conversion_progress, fetch_progress

    counted: dict[str, int] = {}
    title = f"Converting {entry.name} to {layout.RECIPE}"
    with conversion_progress(title) as report, fetch_progress() as shown:

        def fetched(file: str, done: int, total: int) -> None:
            counted[file] = done
            shown(file, done, total)

        make(entry, progress=report, fetched=fetched, on_wait=_waiting)
    return sum(counted.values())


def _waiting(owner: str) -> None:
    say(f"Waiting for {owner}, which is getting the same model")


def _forecast(entry: PinnedModel, *, convert: bool) -> Iterator[tuple[str, str]]:
    """Size, licence, disk, memory."""
    from edgesppo.store import estimate

    yield "model", one_line(entry.description)
    yield "from", f"{entry.repository} at {entry.revision}"
    shape = estimate.read_shape(entry)
    made, left, free = estimate.weights(entry, shape), pull.left(entry), pull.free()
    shard = max((file.size for file in entry.files), default=0)
    n = len(entry.files)
    whole = f"{size(entry.size)} in {n} file{'s' if n > 1 else ''}"
    rest = f"{size(left)} of them still to come" if left else "all of them here"
    yield "size", whole if left == entry.size else f"{whole}, {rest}"
    yield "licence", license_claims.line(entry)
    room = "" if free is None else f", {size(free)} are free in {layout.root()}"
    if convert:
        needed = made + (0 if layout.is_there(entry) else shard)
        yield "disk", f"about {size(made)} once it is converted, {size(needed)} until then{room}"
    else:
        needed = left
        later = f", about {size(made)} more once it is used" if entry.kind == CHECKPOINT else ""
        yield "disk", f"{size(left)}{later}{room}"
    yield "memory", _memory(made, estimate.memory(entry, shape))
    pull.check_space(needed)


def _memory(weights: int, plan: Plan | None) -> str:
    """What loading it takes, what there is, and whether that is enough."""
    free = available_memory() if plan is None else plan.available
    room = "" if free is None else f", {size(free)} are free"
    if plan is None:
        fits = "perhaps" if free is None or weights <= free else "no: use a smaller model"
        return f"at least {size(weights)}, for its weights{room}; fits: {fits}"
    fits = "yes" if plan.fits else f"no: {plan.advice()}"
    return f"about {size(plan.total)} with {plan.n_ctx:,} tokens of context{room}; fits: {fits}"


def _need_licence(entry: PinnedModel, *, accept: bool) -> None:
    """Have what the repository claims accepted, once; raises UsageError where it is not."""
    repository, terms = str(entry.repository), license_claims.terms(entry)
    if license_claims.is_free(entry) or user_state.accepted(repository, terms):
        return
    title = license_claims.title(entry)
    if not accept and has_terminal(sys.stdin) and has_terminal(sys.stderr):
        question = f"Do you accept the licence {title} of {repository}?"
        accept = click.confirm(question, default=False, err=True)
    if not accept:
        where = entry.license_link or f"{endpoint()}/{repository}"
        raise UsageError(
            f"the licence {title} of {entry.name} is not accepted, so nothing is fetched; read it"
            f" ({one_line(where)}), then: edgesppo pull {entry.name} --accept-license"
        )
    user_state.accept(repository, terms)


def _pinned_lines(before: PinnedModel, entry: PinnedModel) -> Iterator[str]:
    """What is pinned, and what it was before."""
    if entry.repository is None:
        files = f"{len(entry.files)} files, {size(entry.size)}"
        yield f"{entry.name} is of this machine ({files}): there is nothing to pin"
        return
    changed = before.is_pinned and before.revision != entry.revision
    yield f"{entry.name}: {entry.repository}"
    if changed:
        yield labelled("was", str(before.revision))
    yield labelled("now" if changed else "commit", str(entry.revision))
    old = {file.path: file for file in before.files} if changed else {}
    for file in entry.files:
        kind = "sha256" if file.sha256 else "git"
        same = " (as before)" if old.get(file.path) == file else ""
        yield f"  {size(file.size):>10}  {file.path}  {kind} {file.digest[:12]}{same}"
    for path in sorted(set(old) - {file.path for file in entry.files}):
        yield f"  {'gone':>10}  {path}"
    yield labelled("licence", license_claims.line(entry))
    yield f"Pinned in {layers.own()}"


def _described(entry: PinnedModel) -> dict[str, Any]:
    """An entry as JSON."""
    return {
        "name": entry.name,
        "kind": entry.kind,
        "repository": entry.repository,
        "revision": entry.revision,
        "bytes": entry.size,
        "license": entry.license,
        "license_name": entry.license_name,
        "license_in_text": entry.license_in_text,
        "license_in_file": entry.license_in_file,
        "license_link": entry.license_link,
        "files": [
            {"path": file.path, "size": file.size, "sha256": file.sha256, "oid": file.oid}
            for file in entry.files
        ],
    }
