"""Pin a model of the hub in the lock, and download its files, one process at a time.

Opens no connection for what is already pinned and present.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import DownloadError, ModelNotFound, OutputError, UsageError
from edgesppo.hub.client import HubClient
from edgesppo.hub.download import part_path
from edgesppo.hub.parallel_download import download_all
from edgesppo.hub.repository import REVISION, Repository, parse_reference
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT, SHA256_DIGITS, UNRESOLVED, name_is_taken
from edgesppo.lockfile.files import with_sha256
from edgesppo.store import commit_lock, layout
from edgesppo.store.near import near_model
from edgesppo.store.resolve import new_entry, resolve
from edgesppo.system.fs import FileSystem
from edgesppo.system.paths import nearest_existing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesppo.hub.download import FetchProgress
    from edgesppo.lockfile.entries import PinnedFile, PinnedModel


@dataclass(frozen=True)
class Request:
    """The entry that a user named, pinned or not, and the branch, tag or commit after the @."""

    entry: PinnedModel
    reference: str | None


def parse_request(text: str, name: str | None = None, *, may_create: bool = False) -> Request:
    """Find or create the entry of a lock's name or of OWNER/NAME[@REVISION].

    `name` is what to call a new entry. With `may_create`, the project's lock need not exist yet.
    Raises ModelNotFound and UsageError.
    """
    lock = layers.read(may_create=may_create)
    if text in lock.models:
        return Request(lock.models[text], None)
    repository = parse_reference(text)
    if repository is None:
        raise ModelNotFound(
            f"{text[:80]!r}{lock.did_you_mean(text)} is neither a name in a lock"
            f" ({', '.join(lock.models)}) nor a repository; type OWNER/NAME, or OWNER/NAME@COMMIT"
        )
    reference = repository.revision if "@" in text else None
    known = lock.models.get(name) if name else lock.of_repository(str(repository))
    if known is not None and known.is_of(str(repository)):
        return Request(known, reference)
    entry, known = new_entry(repository, name), lock.of_repository(str(repository))
    if known is not None:  # known under another name: its description and claims apply here, too
        entry = replace(known, name=entry.name, revision=UNRESOLVED, files=(), builds=())
    taken = lock.same_named(entry.name)
    if taken is not None:
        raise name_is_taken(taken, f"edgesppo lock {text} --name NAME")
    return Request(entry, reference)


def pin(
    request: Request, *, update: bool = False, file: str | None = None, in_project: bool = False
) -> PinnedModel:
    """Pin the entry to a commit and its files; asks the hub only if it is not pinned yet.

    `update` pins it again. `file` chooses one of several GGUF files. `in_project` copies an entry
    that is pinned in another lock to the project's lock. Raises DownloadError, ModelNotFound,
    UsageError and OutputError.
    """
    entry, reference = request.entry, request.reference
    if entry.repository is None:
        if update or reference:
            raise UsageError(f"{entry.name} is not a model of the hub; there is nothing to pin")
        return entry
    if entry.is_pinned and not update:
        if reference in (None, entry.revision):
            return record_in_project(entry) if in_project else entry
        raise UsageError(
            f"{entry.name} is pinned to {entry.revision}; to pin it again: edgesppo lock"
            f" {entry.repository}@{reference} --update"
        )
    pinned = resolve(HubClient(), entry, reference or "main", file)

    def change(before: PinnedModel | None) -> PinnedModel:
        # Another process may have pinned it meanwhile: that pin is kept.
        keep = before is not None and before.is_pinned and not update
        return before if before is not None and keep else pinned

    layers.update_entry(entry.name, change)
    return layers.read().models[entry.name]


def record_in_project(entry: PinnedModel) -> PinnedModel:
    """Copy a pinned entry to the project's lock, if there is one and it lacks the entry."""
    if layers.project() is not None and layers.write_target() not in layers.locks_with(entry.name):
        layers.update_entry(entry.name, lambda before: before or entry)
    return entry


def source(text: str) -> str:
    """Translate a lock's name for the converter: to a local folder, or OWNER/NAME@COMMIT.

    Returns any other text unchanged. Raises UsageError for a name that cannot be converted, and
    ModelNotFound for one that is almost the name of a model or a folder.
    """
    lock = layers.read()
    entry = lock.models.get(text) or lock.of_repository(text)
    if entry is None:
        if not Path(text).exists() and "@" not in text and (near := near_model(text, lock)):
            raise ModelNotFound(
                f"there is no folder {text[:80]!r}, nor a model of this name{near}; expected a"
                " folder with config.json, a name (see: edgesppo list), or OWNER/NAME@COMMIT"
            )
        return text
    if entry.kind != CHECKPOINT:
        raise UsageError(
            f"{entry.name} is already a GGUF file; expected a checkpoint; to use it:"
            f" edgesppo chat {entry.name}"
        )
    if layout.is_present(entry):
        return str(layout.model_dir(entry))
    if entry.is_pinned and entry.repository is not None:
        return f"{entry.repository}@{entry.revision}"
    raise UsageError(
        f"{entry.name} is not pinned to a commit yet; pin it first: edgesppo lock {entry.name}"
    )


def repository(entry: PinnedModel) -> Repository:
    """The hub repository of a pinned entry. Raises UsageError if it has none."""
    if entry.repository is None or not REVISION.fullmatch(entry.revision or ""):
        raise UsageError(f"{entry.name} is not a model of the hub, so it cannot be fetched")
    owner, name = entry.repository.split("/")
    return Repository(owner, name, str(entry.revision))


def find_local(entry: PinnedModel, *, convert: bool) -> Path | None:
    """The path to run of the entry, if present: its converted GGUF file, else its own files.

    With `convert`, the files of a checkpoint do not count.
    """
    build = layout.find_build(entry)
    if build is not None:
        return build[0]
    to_convert = convert and entry.kind == CHECKPOINT and entry.repository is not None
    return layout.model_file(entry) if layout.is_present(entry) and not to_convert else None


def bytes_to_fetch(entry: PinnedModel) -> int:
    """Bytes that are still to be downloaded, not counting partial downloads."""
    return sum(file.size - _partial_bytes(entry, file) for file in layout.missing_files(entry))


def _partial_bytes(entry: PinnedModel, file: PinnedFile) -> int:
    part = part_path(layout.model_dir(entry) / file.path)
    return min(file.size, layout.size_of(part) or 0)


def free_bytes() -> int | None:
    """Free bytes on the disk of the store; None if unknown."""
    with suppress(OSError):
        return shutil.disk_usage(nearest_existing(layout.root())).free
    return None


def check_space(needed: int) -> None:
    """Raise OutputError if the store's disk has fewer than `needed` bytes free."""
    free = free_bytes()
    if free is not None and free < needed:
        raise OutputError(
            f"not enough disk space in {layout.root()}: {needed:,} bytes are needed, {free:,} are"
            " free; free some space, or set EDGESPPO_HOME to a folder on another disk"
        )


def pull(
    entry: PinnedModel,
    *,
    on_fetch: FetchProgress | None = None,
    on_wait: Callable[[str], None] | None = None,
    files: FileSystem | None = None,
) -> Sequence[PinnedFile]:
    """Download the missing files of a pinned entry; returns those that were downloaded.

    Waits for another process that is downloading the same commit: `on_wait` is called once with
    its name. `on_fetch` is called with a file's path, the bytes present and its size.
    Raises DownloadError and OutputError.
    """
    if layout.is_present(entry):
        return ()
    with commit_lock.hold(str(entry.revision), on_wait, files or FileSystem()):
        missing = layout.missing_files(entry)
        if missing:
            check_space(bytes_to_fetch(entry))
            folder = layout.model_dir(entry)
            for file in missing:
                layout.check_inside(folder / file.path)
            download_all(repository(entry), missing, folder, on_fetch=on_fetch, files=files)
            _record_hashes(entry)
    return missing


def _record_hashes(entry: PinnedModel) -> None:
    """Add the sha256 of small files to the lock: the hub reports only git's SHA-1 for them."""
    if all(file.sha256 for file in entry.files):
        return
    holders, folder = layers.locks_with(entry.name), layout.model_dir(entry)

    def change(before: PinnedModel | None) -> PinnedModel | None:
        same = before is not None and before.revision == entry.revision
        return with_sha256(before, folder) if before is not None and same else before

    with suppress(OutputError):  # if the lock cannot be written, git's SHA-1 goes on being checked
        if holders:
            layers.update_entry(entry.name, change, holders[0])


def check_listing(entry: PinnedModel) -> None:
    """Check that the hub still has exactly the pinned files. Raises DownloadError if not."""
    listing = HubClient().files(repository(entry))
    for file in entry.files:
        found = listing.get(file.path)
        if found is None:
            raise DownloadError(
                f"{entry.repository} no longer has {file.path}, which is pinned; to pin what it"
                f" has now: edgesppo lock {entry.name} --update"
            )
        pinned = file.sha256 if len(found.digest) == SHA256_DIGITS else file.oid
        pinned = pinned or file.digest
        if (found.size, found.digest) != (file.size, pinned):
            raise DownloadError(
                f"{file.path} of {entry.repository} has {found.size:,} bytes and the hash"
                f" {found.digest}, but {file.size:,} bytes and {pinned} are pinned; to pin what the"
                f" hub has now: edgesppo lock {entry.name} --update"
            )
