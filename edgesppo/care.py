"""Owns what becomes of files that are here: looked at again, removed, swept up.

Touches nothing outside of our own folders, and nothing that another entry uses. Opens no
connection.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo import busy, locked, lockfile, locks, place
from edgesppo.errors import OutputError
from edgesppo.files import Files, cannot_write
from edgesppo.home import home
from edgesppo.pinned import CHECKPOINT
from edgesppo.repository import RemoteFile
from edgesppo.store import copies_of, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.pinned import PinnedModel

    # Hears how many bytes were hashed, and of how many.
    Hashed = Callable[[int, int], None]

_BLOCK = 4 << 20
_PARTIAL = "a download that was not finished"
_COPY = "a converted copy"
_ORPHAN = "a converted copy of a folder that is gone"
_OTHER = "a converted file that no lock records"
_UNPINNED = "files of a commit that no lock pins"


@dataclass(frozen=True)
class Checked:
    """One file that was hashed again: `found` is what it has now, None where it cannot be read."""

    path: Path
    expected: str
    found: str | None
    is_build: bool

    @property
    def is_sound(self) -> bool:
        """Whether it is what was pinned."""
        return self.found == self.expected


@dataclass(frozen=True)
class Rest:
    """Something that can go: bytes that are freed, and what it is."""

    path: Path
    n_bytes: int
    what: str


def present(entry: PinnedModel) -> list[tuple[Path, int, str, bool]]:
    """Path, size and pinned hash of every file that should be here, whatever is there.

    That is every file of a checkpoint of which any is here, and every build that is.
    """
    if not entry.is_pinned:
        return []
    folder = place.folder(entry)
    found = [(folder / file.path, file.size, file.digest, False) for file in entry.files]
    for made in entry.builds:
        if made.platform == place.platform_name():
            path = place.build_path(entry, made.recipe)
            found.append((path, made.size, made.sha256, True))
    there = [item for item in found if place.size_of(item[0]) is not None]
    # A checkpoint of which a part is here is one that lacks the rest.
    lacking = [item for item in found if item not in there and not item[3]]
    started = any(not is_build for *_, is_build in there)
    return [item for item in found if item in there or (started and item in lacking)]


def check(entry: PinnedModel, hashed: Hashed | None = None) -> Iterator[Checked]:
    """Hash every file of the entry that is here."""
    there, done = present(entry), 0
    total = sum(size for _, size, _, _ in there)
    for path, size, expected, is_build in there:
        found = None
        if place.size_of(path) == size:
            hasher = RemoteFile(path.name, size, expected).hasher()
            with suppress(OSError), path.open("rb", buffering=0) as file:
                while data := file.read(_BLOCK):
                    hasher.update(data)
                    if hashed is not None:
                        hashed(min(total, done + file.tell()), total)
                found = hasher.hexdigest()
        done += size
        yield Checked(path, expected, found, is_build)


def discard(damaged: list[Checked]) -> None:
    """Remove files that can be had again, those that are damaged. Raises OutputError."""
    for checked in damaged:
        _remove(checked.path)


def belongings(entry: PinnedModel) -> list[Rest]:
    """What `rm` would remove of an entry: its files, but those that another entry uses."""
    if entry.repository is None or not entry.is_pinned:
        return []
    folder, found = place.folder(entry), list[Rest]()
    others = _siblings(entry)
    if not others and folder.is_dir():
        found.append(Rest(folder, _size(folder), "the files of the hub"))
    if others:
        used = {file.path for other in others for file in other.files}
        for file in entry.files:
            path = folder / file.path
            mine = (path, place.part(path)) if file.path not in used else ()
            found += [Rest(p, _size(p), "a file of the hub") for p in mine if p.is_file()]
    if not any(other.kind == CHECKPOINT for other in others):
        found += [Rest(copy, _size(copy), _COPY) for copy in copies_of(folder)]
    for made in entry.builds:
        path = place.build_path(entry, made.recipe, made.platform)
        if path.is_file():
            found.append(Rest(path, _size(path), f"converted to {made.recipe}"))
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
        for other in _every()
        if (other.name, other.files) != (entry.name, entry.files)
        and (other.repository, other.revision) == same
    ]


def _every() -> list[PinnedModel]:
    """The entries of every lock that is known here, also those that another's name hides."""
    known = [lockfile.read(), *(lockfile.read(path) for path in locks.layers() if path.exists())]
    return [entry for lock in known for entry in lock.models.values()]


def forget(entry: PinnedModel) -> Path:
    """Drop an imported entry from the lock that it stands in: which; its files stay."""
    path = locks.holders(entry.name)[0]
    locks.record(entry.name, lambda _: None, path)
    return path


def rubbish(*, unpinned: bool = False) -> list[Rest]:
    """What nothing uses: unfinished downloads, converted copies whose folder is gone.

    With `unpinned`, also what no lock pins or records that is known here. Never what a process
    is at work on.
    """
    files = Files()
    return [rest for rest in _rests(unpinned=unpinned) if not _workers(rest.path, files)]


def workers(*, unpinned: bool = False) -> list[str]:
    """Who is at work on what would be rubbish without them."""
    files = Files()
    return sorted({who for r in _rests(unpinned=unpinned) for who in _workers(r.path, files)})


def _workers(path: Path, files: Files) -> list[str]:
    return [who for commit in place.commits(path) if (who := busy.owner(commit, files))]


def _rests(*, unpinned: bool) -> list[Rest]:
    models = _every()
    top, found = place.root(), list[Rest]()
    if top.is_dir():
        found += [Rest(path, _size(path), _PARTIAL) for path in _parts(top)]
        known = {
            place.build_path(e, b.recipe, b.platform)
            for e in models
            if e.is_pinned and e.repository
            for b in e.builds
        }
        made = (path for path in sorted(top.iterdir()) if path.is_file() and _is_made(path))
        # A whole file may be in a lock that is not known here.
        found += [
            Rest(path, _size(path), _OTHER)
            for path in made
            if path not in known and (unpinned or path.suffix != ".gguf" or path.name[0] == ".")
        ]
    copies = sorted((home() / "converted").glob("*.gguf"))
    orphans = (copy for copy in copies if (origin := origin_of(copy)) and not origin.is_dir())
    found += [Rest(copy, _size(copy), _ORPHAN) for copy in orphans]
    if unpinned:
        pinned = {place.folder(entry) for entry in models if entry.repository and entry.is_pinned}
        folders = (path for path in sorted(top.glob("*--*/*")) if path.is_dir())
        found += [Rest(path, _size(path), _UNPINNED) for path in folders if path not in pinned]
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


def sweep(rests: list[Rest], *, unpinned: bool = False) -> list[Rest]:
    """Remove of these what is rubbish still, and what nobody is at work on; what was removed."""
    return [r for r in rests if _removed(r, lambda: _rests(unpinned=unpinned))]


def remove(entry: PinnedModel, rests: list[Rest]) -> list[Rest]:
    """Remove of these what belongs to the entry still; what was removed.

    Raises OutputError, which says who is at work on them.
    """
    files, removed = Files(), list[Rest]()
    try:
        with busy.at_once([str(entry.revision)], files):
            current = {rest.path for rest in belongings(entry)}
            for rest in rests:
                if rest.path in current:
                    _remove_rest(rest)
                    removed.append(rest)
    except locked.Held as held:
        raise _in_use(entry, held.owner) from None
    return removed


def check_free(entry: PinnedModel) -> None:
    """Raise OutputError where a process is at work on the entry's files."""
    if who := busy.owner(str(entry.revision), Files()):
        raise _in_use(entry, who)


def _in_use(entry: PinnedModel, who: str) -> OutputError:
    return OutputError(
        f"{who} is getting {entry.name}, so nothing is removed; wait for it, or stop it"
    )


def _removed(rest: Rest, current: Callable[[], list[Rest]]) -> bool:
    try:
        with busy.at_once(place.commits(rest.path), Files()):
            there = any(rest.path == now.path for now in current())
            if there:
                _remove_rest(rest)
            return there
    except locked.Held:
        return False


def _remove_rest(rest: Rest) -> None:
    _remove(rest.path)
    origin = rest.path.with_suffix(".from")
    if rest.what in (_ORPHAN, _COPY) and origin.is_file():
        _remove(origin)


def _remove(path: Path) -> None:
    ours, real = {home().resolve(), place.root().resolve()}, path.parent.resolve()
    if not ours & {real, *real.parents}:
        raise OutputError(f"{path} is really in {real}, outside of {home()}: it is not removed")
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            Files().unlink(path)
        for folder in path.parents:  # those of a repository and a commit, where nothing is left
            if place.root() not in folder.parents:
                break
            with suppress(OSError):
                folder.rmdir()
    except OSError as error:
        raise cannot_write(path, error) from error


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(_size(child) for child in path.iterdir() if not child.is_symlink())
    with suppress(OSError):
        return path.stat().st_size
    return 0
