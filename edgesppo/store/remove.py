"""What of a model can be removed from this machine, and its removal.

Nothing outside of our own folders is touched, and nothing that another entry uses.
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
from edgesppo.store import commit_lock, layout
from edgesppo.store.converted import copies_of
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem, cannot_write
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.store.verify import CheckedFile


COPY, ORPHAN = "a converted copy", "a converted copy of a folder that is gone"


@dataclass(frozen=True)
class Removable:
    """Something that can go: bytes that are freed, and what it is."""

    path: Path
    n_bytes: int
    what: str


def discard(damaged: Sequence[CheckedFile]) -> None:
    """Remove files that can be had again, those that are damaged. Raises OutputError."""
    for checked in damaged:
        _remove(checked.path)


def removable(entry: PinnedModel) -> list[Removable]:
    """What `rm` would remove of an entry: its files, but those that another entry uses."""
    if entry.repository is None or not entry.is_pinned:
        return []
    folder, found = layout.model_dir(entry), list[Removable]()
    others = _siblings(entry)
    if not others and folder.is_dir():
        found.append(Removable(folder, n_bytes(folder), "the files of the hub"))
    if others:
        used = {file.path for other in others for file in other.files}
        for file in entry.files:
            path = folder / file.path
            mine = (path, part_path(path)) if file.path not in used else ()
            found += [Removable(p, n_bytes(p), "a file of the hub") for p in mine if p.is_file()]
    if not any(other.kind == CHECKPOINT for other in others):
        found += [Removable(copy, n_bytes(copy), COPY) for copy in copies_of(folder)]
    for made in entry.builds:
        path = layout.build_path(entry, made.recipe, made.platform)
        if path.is_file():
            found.append(Removable(path, n_bytes(path), f"converted to {made.recipe}"))
    return found


def users(entry: PinnedModel) -> list[str]:
    """The other entries that use some of the same files."""
    paths = {file.path for file in entry.files}
    sharing = (other for other in _siblings(entry) if paths & {file.path for file in other.files})
    return sorted({other.name for other in sharing})


def _siblings(entry: PinnedModel) -> list[PinnedModel]:
    """The other entries of the same commit, in any lock that is known here."""
    same = (entry.repository, entry.revision)
    return [
        other
        for other in layers.all_entries()
        if _paths(other) != _paths(entry) and (other.repository, other.revision) == same
    ]


def _paths(entry: PinnedModel) -> list[str]:
    """What two locks have in common of an entry, of which one may know more hashes."""
    return [entry.name, *(file.path for file in entry.files)]


def forget(entry: PinnedModel) -> Path:
    """Drop an imported entry from the lock that it stands in: which; its files stay."""
    path = layers.locks_with(entry.name)[0]
    layers.update_entry(entry.name, lambda _: None, path)
    return path


def remove(entry: PinnedModel, rests: list[Removable]) -> list[Removable]:
    """Remove of these what belongs to the entry still; what was removed.

    Raises OutputError, which says who is at work on them.
    """
    files, removed = FileSystem(), list[Removable]()
    try:
        with commit_lock.hold_now([str(entry.revision)], files):
            current = {rest.path for rest in removable(entry)}
            for rest in rests:
                if rest.path in current:
                    remove_rest(rest)
                    removed.append(rest)
    except filelock.LockHeld as held:
        raise _in_use(entry, held.owner) from None
    return removed


def check_free(entry: PinnedModel) -> None:
    """Raise OutputError where a process is at work on the entry's files."""
    if who := commit_lock.owner(str(entry.revision), FileSystem()):
        raise _in_use(entry, who)


def _in_use(entry: PinnedModel, who: str) -> OutputError:
    return OutputError(
        f"{who} is getting {entry.name}, so nothing is removed; wait for it, or stop it"
    )


def remove_rest(rest: Removable) -> None:
    """Remove it, and the note beside a converted copy. Raises OutputError."""
    _remove(rest.path)
    origin = rest.path.with_suffix(".from")
    if rest.what in (ORPHAN, COPY) and origin.is_file():
        _remove(origin)


def _remove(path: Path) -> None:
    ours, real = {cache_dir().resolve(), layout.root().resolve()}, path.parent.resolve()
    if not ours & {real, *real.parents}:
        raise OutputError(
            f"{path} is really in {real}, outside of {cache_dir()}: it is not removed"
        )
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            FileSystem().unlink(path)
        for folder in path.parents:  # those of a repository and a commit, where nothing is left
            if layout.root() not in folder.parents:
                break
            with suppress(OSError):
                folder.rmdir()
    except OSError as error:
        raise cannot_write(path, error) from error


def n_bytes(path: Path) -> int:
    """Of a file, or of all in a folder; links are not followed. None counts as none."""
    if path.is_dir():
        return sum(n_bytes(child) for child in path.iterdir() if not child.is_symlink())
    with suppress(OSError):
        return path.stat().st_size
    return 0
