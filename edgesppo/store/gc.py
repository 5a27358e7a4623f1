"""Find and remove files in our folders that nothing uses any more.

Keeps whatever a lock pins or records, and whatever another process is working on. Opens no
connection.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.lockfile.layers import all_entries
from edgesppo.store import commit_lock, converted, layout
from edgesppo.store.remove import BEGUN, ORPHAN, CopyInUse, Removable, disk_usage, remove_item
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.lockfile.entries import PinnedModel

_PARTIAL = "an unfinished download"
_OTHER = "a converted file that no lock records"
_UNPINNED = "files of a commit that no lock pins"


def find_garbage(*, unpinned: bool = False) -> list[Removable]:
    """Find unfinished downloads and conversions, and converted copies of folders that are gone.

    With `unpinned`, also files that no lock known here pins or records. Leaves out whatever
    another process is working on.
    """
    files = FileSystem()
    return [item for item in _candidates(unpinned=unpinned) if not _owners(item.path, files)]


def owners(*, unpinned: bool = False) -> list[str]:
    """The processes that are working on files that would otherwise be garbage."""
    files = FileSystem()
    return sorted({who for r in _candidates(unpinned=unpinned) for who in _owners(r.path, files)})


def _owners(path: Path, files: FileSystem) -> list[str]:
    return [who for lock in _locks(path) if (who := commit_lock.owner(lock, files))]


def _locks(path: Path) -> list[Path]:
    """The locks that a process holds which works on this path."""
    copy = converted.lock_path(path)
    return [copy] if copy else list(map(layout.commit_lock_path, layout.commits(path)))


def _candidates(*, unpinned: bool) -> list[Removable]:
    """Everything that nothing uses, whether or not a process is working on it."""
    models, top = all_entries(), layout.root()
    found = list[Removable]()
    if top.is_dir():
        found += [Removable(path, disk_usage(path), _PARTIAL) for path in _partial_files(top)]
        found += _unrecorded_builds(top, models, unpinned=unpinned)
    found += _copies(models)
    return found + (_unpinned_folders(top, models) if unpinned else [])


def _unrecorded_builds(
    top: Path, models: list[PinnedModel], *, unpinned: bool
) -> Iterator[Removable]:
    recorded = {
        layout.build_path(entry, build.recipe, build.platform)
        for entry in models
        if entry.is_pinned and entry.repository
        for build in entry.builds
    }
    for path in sorted(top.iterdir()):
        # A complete file may be recorded in a lock that is not known here.
        is_begun = path.name.startswith(".") and ".edgesppo-" in path.name
        may_go = is_begun or (unpinned and path.suffix == ".gguf" and path not in recorded)
        if path.is_file() and may_go:
            yield Removable(path, disk_usage(path), BEGUN if is_begun else _OTHER)


def _copies(models: list[PinnedModel]) -> Iterator[Removable]:
    """Converted copies of folders that no longer exist, but for those that were imported; and what
    remains of those that did not become whole.
    """
    imported = {layout.model_file(entry) for entry in models if entry.location is not None}
    for copy, files in converted.files_by_copy().items():
        origin = converted.origin_of(copy)
        if copy not in files:
            yield from (Removable(path, disk_usage(path), BEGUN) for path in files)
        elif origin and not origin.is_dir() and copy not in imported:
            yield Removable(copy, disk_usage(copy), ORPHAN)


def _unpinned_folders(top: Path, models: list[PinnedModel]) -> list[Removable]:
    pinned = {layout.model_dir(entry) for entry in models if entry.repository and entry.is_pinned}
    folders = (path for path in sorted(top.glob("*--*/*")) if path.is_dir())
    return [Removable(path, disk_usage(path), _UNPINNED) for path in folders if path not in pinned]


def _partial_files(top: Path) -> list[Path]:
    """Partial downloads at any depth of a model's folder; does not follow links."""
    return sorted(
        Path(folder) / name
        for folder, _, names in os.walk(top)
        for name in names
        if name.startswith(".") and name.endswith(".part") and Path(folder) != top
    )


def collect(items: list[Removable], *, unpinned: bool = False) -> list[Removable]:
    """Remove those items that are still garbage and not in use; returns the removed ones."""
    return [r for r in items if _collect_one(r, lambda: _candidates(unpinned=unpinned))]


def _collect_one(item: Removable, current: Callable[[], list[Removable]]) -> bool:
    try:
        with commit_lock.hold_now(_locks(item.path), FileSystem()):
            is_garbage = any(item.path == now.path for now in current())
            if is_garbage:
                remove_item(item)
            return is_garbage
    except (filelock.LockHeld, CopyInUse):
        return False
