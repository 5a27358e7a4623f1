"""Owns what nothing uses in our folders: found, and swept up while nobody is at work on it.

Touches nothing that a lock pins or records. Opens no connection.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.lockfile.layers import all_entries
from edgesppo.store import commit_lock, layout
from edgesppo.store.converted import origin_of
from edgesppo.store.remove import ORPHAN, Removable, n_bytes, remove_rest
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable

_PARTIAL = "a download that was not finished"
_OTHER = "a converted file that no lock records"
_UNPINNED = "files of a commit that no lock pins"


def find_garbage(*, unpinned: bool = False) -> list[Removable]:
    """What nothing uses: unfinished downloads, converted copies whose folder is gone.

    With `unpinned`, also what no lock pins or records that is known here. Never what a process
    is at work on.
    """
    files = FileSystem()
    return [rest for rest in _rests(unpinned=unpinned) if not _workers(rest.path, files)]


def workers(*, unpinned: bool = False) -> list[str]:
    """Who is at work on what would be rubbish without them."""
    files = FileSystem()
    return sorted({who for r in _rests(unpinned=unpinned) for who in _workers(r.path, files)})


def _workers(path: Path, files: FileSystem) -> list[str]:
    return [who for commit in layout.commits(path) if (who := commit_lock.owner(commit, files))]


def _rests(*, unpinned: bool) -> list[Removable]:
    models = all_entries()
    top, found = layout.root(), list[Removable]()
    if top.is_dir():
        found += [Removable(path, n_bytes(path), _PARTIAL) for path in _parts(top)]
        known = {
            layout.build_path(e, b.recipe, b.platform)
            for e in models
            if e.is_pinned and e.repository
            for b in e.builds
        }
        made = (path for path in sorted(top.iterdir()) if path.is_file() and _is_made(path))
        # A whole file may be in a lock that is not known here.
        found += [
            Removable(path, n_bytes(path), _OTHER)
            for path in made
            if path not in known and (unpinned or path.suffix != ".gguf" or path.name[0] == ".")
        ]
    copies = sorted((cache_dir() / "converted").glob("*.gguf"))
    named = {layout.model_file(entry) for entry in models if entry.location is not None}
    orphans = (
        copy
        for copy in copies
        if (origin := origin_of(copy)) and not origin.is_dir() and copy not in named
    )
    found += [Removable(copy, n_bytes(copy), ORPHAN) for copy in orphans]
    if unpinned:
        pinned = {
            layout.model_dir(entry) for entry in models if entry.repository and entry.is_pinned
        }
        folders = (path for path in sorted(top.glob("*--*/*")) if path.is_dir())
        found += [
            Removable(path, n_bytes(path), _UNPINNED) for path in folders if path not in pinned
        ]
    return found


def _parts(top: Path) -> list[Path]:
    """Every file on its way, however deep in a model's folder; links are not followed."""
    return sorted(
        Path(folder) / name
        for folder, _, names in os.walk(top)
        for name in names
        if name.startswith(".") and name.endswith(".part") and Path(folder) != top
    )


def _is_made(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.name.endswith((".gguf", ".differs")) or (hidden and ".edgesppo-" in path.name)


def collect(rests: list[Removable], *, unpinned: bool = False) -> list[Removable]:
    """Remove of these what is rubbish still, and what nobody is at work on; what was removed."""
    return [r for r in rests if _removed(r, lambda: _rests(unpinned=unpinned))]


def _removed(rest: Removable, current: Callable[[], list[Removable]]) -> bool:
    try:
        with commit_lock.hold_now(layout.commits(rest.path), FileSystem()):
            there = any(rest.path == now.path for now in current())
            if there:
                remove_rest(rest)
            return there
    except filelock.LockHeld:
        return False
