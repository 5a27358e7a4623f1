"""Owns getting a lock's model onto this machine: pinned first, then fetched, by one process.

Asks nothing of the network for what is pinned and there. Knows nothing of terminals.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesppo.errors import DownloadError, ModelNotFound, OutputError, UsageError
from edgesppo.hub.client import HubClient
from edgesppo.hub.download import part_path
from edgesppo.hub.parallel_download import download_all
from edgesppo.hub.repository import REVISION, Repository, parse_reference
from edgesppo.lockfile import layers, toml
from edgesppo.lockfile.entries import CHECKPOINT, SHA256_DIGITS, UNRESOLVED
from edgesppo.store import commit_lock, layout
from edgesppo.store.resolve import new_entry, resolve
from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgesppo.hub.download import Fetched
    from edgesppo.lockfile.entries import PinnedFile, PinnedModel


@dataclass(frozen=True)
class Wanted:
    """What a person typed: an entry, pinned or not, and the branch, tag or commit beside it."""

    entry: PinnedModel
    reference: str | None


def wanted(text: str, name: str | None = None, *, may_create: bool = False) -> Wanted:
    """The entry of a name, or of OWNER/NAME[@REVISION]. Raises ModelNotFound, UsageError.

    A project's lock that is named must exist, unless it may be created now.
    """
    lock = layers.read(may_create=may_create)
    if text in lock.models:
        return Wanted(lock.models[text], None)
    repository = parse_reference(text)
    if repository is None:
        raise ModelNotFound(
            f"{text[:80]!r} is no name of a lock ({', '.join(lock.models)}) and no repository;"
            " type OWNER/NAME, or OWNER/NAME@COMMIT"
        )
    reference = repository.revision if "@" in text else None
    known = lock.models.get(name) if name else lock.of_repository(str(repository))
    if known is not None and known.repository == str(repository):
        return Wanted(known, reference)
    entry, known = new_entry(repository, name), lock.of_repository(str(repository))
    if known is not None:  # under another name: what is claimed of it holds here, too
        entry = replace(known, name=entry.name, revision=UNRESOLVED, files=(), builds=())
    taken = lock.same_named(entry.name)
    if taken is not None:
        raise UsageError(
            f"{taken.name} is the name of {taken.repository or taken.location or taken.kind};"
            " choose another with --name"
        )
    return Wanted(entry, reference)


def pin(
    asked: Wanted, *, update: bool = False, file: str | None = None, ours: bool = False
) -> PinnedModel:
    """The entry with its files known; asks the hub, and records, only what is not.

    With `update` it is pinned anew; with `ours` it stands in our own lock, too, where another has
    it. Raises DownloadError, ModelNotFound, UsageError, OutputError.
    """
    entry, reference = asked.entry, asked.reference
    if entry.repository is None:
        if update or reference:
            raise UsageError(f"{entry.name} is no model of the hub; there is nothing to pin anew")
        return entry
    if entry.is_pinned and not update:
        if reference in (None, entry.revision):
            return keep(entry) if ours else entry
        raise UsageError(
            f"{entry.name} is pinned to {entry.revision}; to pin it anew: edgesppo lock"
            f" {entry.repository}@{reference} --update"
        )
    pinned = resolve(HubClient(), entry, reference or "main", file)

    def change(before: PinnedModel | None) -> PinnedModel:
        # Another process may have been first: what it pinned stands.
        first = before is not None and before.is_pinned and not update
        return before if before is not None and first else pinned

    layers.update_entry(entry.name, change)
    return layers.read().models[entry.name]


def keep(entry: PinnedModel) -> PinnedModel:
    """Have a pinned entry in the project's lock, where one is named, as it stands in another."""
    if layers.project() is not None and layers.write_target() not in layers.locks_with(entry.name):
        layers.update_entry(entry.name, lambda before: before or entry)
    return entry


def source(text: str) -> str:
    """What the converter may read of a name: a folder that is here, or OWNER/NAME@COMMIT.

    What is no name of a lock is left as it is.
    """
    lock = layers.read()
    entry = lock.models.get(text) or lock.of_repository(text)
    if entry is None:
        return text
    if entry.kind != CHECKPOINT:
        raise UsageError(
            f"{entry.name} is a GGUF file, so it is converted already; expected a checkpoint; to"
            f" use it: edgesppo chat {entry.name}"
        )
    if layout.is_there(entry):
        return str(layout.model_dir(entry))
    if entry.is_pinned and entry.repository is not None:
        return f"{entry.repository}@{entry.revision}"
    raise UsageError(f"{entry.name} is pinned to no commit yet; first: edgesppo lock {entry.name}")


def repository(entry: PinnedModel) -> Repository:
    """Where the hub has a pinned entry."""
    if entry.repository is None or not REVISION.fullmatch(entry.revision or ""):
        raise UsageError(f"{entry.name} is no model of the hub, so it cannot be fetched")
    owner, name = entry.repository.split("/")
    return Repository(owner, name, str(entry.revision))


def place_of(entry: PinnedModel, *, convert: bool) -> Path | None:
    """Where what is wanted of the entry lies, if it does: its GGUF file, its own files else.

    With `convert`, the files of a checkpoint are not what is wanted.
    """
    made = layout.find_build(entry)
    if made is not None:
        return made[0]
    to_convert = convert and entry.kind == CHECKPOINT and entry.repository is not None
    return layout.model_file(entry) if layout.is_there(entry) and not to_convert else None


def left(entry: PinnedModel) -> int:
    """Bytes that are still to be fetched, less what earlier runs have left."""
    return sum(file.size - _begun(entry, file) for file in layout.missing_files(entry))


def _begun(entry: PinnedModel, file: PinnedFile) -> int:
    part = part_path(layout.model_dir(entry) / file.path)
    return min(file.size, layout.size_of(part) or 0)


def free() -> int | None:
    """Bytes that the disk of our folder still takes; None where the system does not tell."""
    folder = layout.root()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None


def check_space(needed: int) -> None:
    """Refuse at once what would fail after an hour."""
    there = free()
    if there is not None and there < needed:
        raise OutputError(
            f"no space left in {layout.root()}: {needed:,} bytes are needed, {there:,} are free;"
            " free some, or set EDGESPPO_HOME to a folder on another disk"
        )


def pull(
    entry: PinnedModel,
    *,
    fetched: Fetched | None = None,
    on_wait: Callable[[str], None] | None = None,
    files: FileSystem | None = None,
) -> Sequence[PinnedFile]:
    """Have all files of a pinned entry here; those that had to be fetched.

    Where another process is at it, waits for that. `fetched` hears of each file how many bytes
    are there, and of how many; `on_wait` hears once who is waited for.
    """
    if layout.is_there(entry):
        return ()
    with commit_lock.hold(str(entry.revision), on_wait, files or FileSystem()):
        lacking = layout.missing_files(entry)
        if lacking:
            check_space(left(entry))
            folder = layout.model_dir(entry)
            for file in lacking:
                layout.check_inside(folder / file.path)
            download_all(repository(entry), lacking, folder, fetched=fetched, files=files)
            _record_hashes(entry)
    return lacking


def _record_hashes(entry: PinnedModel) -> None:
    """Pin the sha256 of small files, of which the hub tells git's sha1 only, once they are here."""
    if all(file.sha256 for file in entry.files):
        return
    holders, folder = layers.locks_with(entry.name), layout.model_dir(entry)

    def change(before: PinnedModel | None) -> PinnedModel | None:
        same = before is not None and before.revision == entry.revision
        return toml.with_sha256(before, folder) if before is not None and same else before

    with suppress(OutputError):  # a lock that cannot be written holds them against git's all along
        if holders:
            layers.update_entry(entry.name, change, holders[0])


def check_listing(entry: PinnedModel) -> None:
    """Ask the hub whether it still has what is pinned. Raises DownloadError with both values."""
    listing = HubClient().files(repository(entry))
    for file in entry.files:
        found = listing.get(file.path)
        if found is None:
            raise DownloadError(f"{entry.repository} no longer has {file.path}, which is pinned")
        pinned = file.sha256 if len(found.digest) == SHA256_DIGITS else file.oid
        pinned = pinned or file.digest
        if (found.size, found.digest) != (file.size, pinned):
            raise DownloadError(
                f"{file.path} of {entry.repository} has {found.size:,} bytes and the hash"
                f" {found.digest}, but {file.size:,} bytes and {pinned} are pinned"
            )
