"""Remove a model's files from this machine.

Removes nothing outside of our own folders, and nothing that another entry uses.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError
from edgesppo.hub.download import part_path
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT
from edgesppo.store import commit_lock, converted, layout
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem, cannot_write
from edgesppo.system.in_use import remove_unused
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.store.verify import CheckedFile


COPY, ORPHAN = "a converted copy", "a converted copy of a folder that no longer exists"
BEGUN = "of a conversion that has not finished"


class CopyInUse(OutputError):
    """Another process uses the converted copy."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be removed: the bytes that frees, and what it is, in words."""

    path: Path
    n_bytes: int
    what: str


def remove_damaged(damaged: Sequence[CheckedFile]) -> None:
    """Remove these damaged files, so that they are downloaded or converted again.

    Raises OutputError.
    """
    for checked in damaged:
        _remove(checked.path)


def removable(entry: PinnedModel) -> list[Removable]:
    """What `rm` would remove of an entry: its files, except those that another entry uses."""
    if entry.repository is None or not entry.is_pinned:
        return []
    folder, found = layout.model_dir(entry), list[Removable]()
    others = _siblings(entry)
    if not others and folder.is_dir():
        found.append(Removable(folder, disk_usage(folder), "the files from the hub"))
    if others:
        used = {file.path for other in others for file in other.files}
        for file in entry.files:
            path = folder / file.path
            unused = (path, part_path(path)) if file.path not in used else ()
            found += [
                Removable(p, disk_usage(p), "a file from the hub") for p in unused if p.is_file()
            ]
    if not any(other.kind == CHECKPOINT for other in others):
        found += removable_copies(folder)
    builds = {layout.build_path(entry, b.recipe, b.platform): b.recipe for b in entry.builds}
    for path, recipe in builds.items():
        if path.is_file():
            found.append(Removable(path, disk_usage(path), f"converted to {recipe}"))
    begun = sorted(layout.root().glob(layout.begun_pattern(entry)))
    return found + [Removable(path, disk_usage(path), BEGUN) for path in begun]


def removable_copies(folder: Path) -> list[Removable]:
    """The copies converted from a checkpoint folder, whole or begun."""
    return [
        Removable(path, disk_usage(path), COPY if path == copy else BEGUN)
        for copy, files in converted.copies_of(folder).items()
        for path in files
        if path == copy or copy not in files or path.suffix != ".from"
    ]


def sharing(entry: PinnedModel) -> list[str]:
    """The names of the other entries that use some of the same files."""
    paths = {file.path for file in entry.files}
    others = (other for other in _siblings(entry) if paths & {file.path for file in other.files})
    return sorted({other.name for other in others})


def _siblings(entry: PinnedModel) -> list[PinnedModel]:
    """The other entries of the same commit, in any lock that is known here."""
    same = (entry.repository, entry.revision)
    return [
        other
        for other in layers.all_entries()
        if _paths(other) != _paths(entry) and (other.repository, other.revision) == same
    ]


def _paths(entry: PinnedModel) -> list[str]:
    """The name and file paths, which tell entries apart: another lock may know more hashes."""
    return [entry.name, *(file.path for file in entry.files)]


def remove_copies(folder: Path, items: list[Removable]) -> None:
    """Remove copies converted from a checkpoint folder. Raises OutputError where one is in use."""
    try:
        with commit_lock.hold_now(_copy_locks(items), FileSystem()):
            for item in items:
                remove_item(item)
    except filelock.LockHeld as held:
        raise _in_use(str(folder), held.owner) from None


def _copy_locks(items: list[Removable]) -> list[Path]:
    """The locks that processes hold which make the copies among these items."""
    return [lock for item in items if (lock := converted.lock_path(item.path))]


def forget(entry: PinnedModel) -> Path:
    """Remove an imported entry from its lock, but not its files; returns the lock's path."""
    path = layers.locks_with(entry.name)[0]
    layers.update_entry(entry.name, lambda _: None, path)
    return path


def remove(entry: PinnedModel, items: list[Removable]) -> list[Removable]:
    """Remove those items that still belong to the entry; returns the removed ones.

    Raises OutputError if another process is working on them, and names it.
    """
    locks = [layout.commit_lock_path(str(entry.revision)), *_copy_locks(items)]
    removed = list[Removable]()
    try:
        with commit_lock.hold_now(locks, FileSystem()):
            current = {item.path for item in removable(entry)}
            for item in items:
                if item.path in current:
                    remove_item(item)
                    removed.append(item)
    except filelock.LockHeld as held:
        raise _in_use(entry.name, held.owner) from None
    return removed


def check_free(entry: PinnedModel) -> None:
    """Raise OutputError if another process is working on the entry's files."""
    if who := commit_lock.owner(layout.commit_lock_path(str(entry.revision)), FileSystem()):
        raise _in_use(entry.name, who)


def _in_use(what: str, who: str) -> OutputError:
    return OutputError(
        f"{who} is downloading or converting {what}, so nothing is removed; wait for it, or stop it"
    )


def remove_item(item: Removable) -> None:
    """Remove a file or folder; with a converted copy, also its .from file.

    Raises OutputError, and CopyInUse for a copy that another process uses.
    """
    is_copy = item.what in (ORPHAN, COPY)
    _remove(item.path, is_copy=is_copy)
    origin = converted.record_of(item.path)
    if is_copy and origin.is_file():
        _remove(origin)


def _remove(path: Path, *, is_copy: bool = False) -> None:
    real = path.parent.resolve()
    if not layout.is_ours(real):
        raise OutputError(
            f"{path} is really in {real}, outside of {cache_dir()}, so it is not removed; remove it"
            " yourself"
        )
    try:
        if is_copy:
            if not remove_unused(path):
                raise CopyInUse(f"{path} is being used by another process; wait for it, or stop it")
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            FileSystem().unlink(path)
        for folder in path.parents:  # the folders of the commit and repository, if now empty
            if layout.root() not in folder.parents:
                break
            with suppress(OSError):
                folder.rmdir()
    except OSError as error:
        raise cannot_write(path, error) from error


def disk_usage(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if absent. Does not follow links."""
    if path.is_dir():
        return sum(disk_usage(child) for child in path.iterdir() if not child.is_symlink())
    with suppress(OSError):
        return path.lstat().st_size
    return 0
