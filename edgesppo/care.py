"""Owns what becomes of files that are here: looked at again, removed, swept up.

Touches nothing outside of our own folders, and nothing that another entry uses. Opens no
connection.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo import locked, lockfile, locks, place
from edgesppo.errors import OutputError
from edgesppo.files import Files, cannot_write
from edgesppo.home import home
from edgesppo.repository import RemoteFile
from edgesppo.store import copies_of, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgesppo.pinned import PinnedModel

    # Hears how many bytes were hashed, and of how many.
    Hashed = Callable[[int, int], None]

_BLOCK = 4 << 20
_PARTIAL = "a download that was not finished"
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


def discard_damaged(entry: PinnedModel) -> list[Path]:
    """Remove the files that are damaged, of those that can be had again; which they were."""
    if entry.repository is None:
        return []
    damaged = [checked.path for checked in check(entry) if not checked.is_sound]
    for path in damaged:
        _remove(path)
    return damaged


def belongings(entry: PinnedModel) -> list[Rest]:
    """What `rm` would remove of an entry: its files, unless another entry uses them."""
    if entry.repository is None or not entry.is_pinned:
        return []
    folder, found = place.folder(entry), list[Rest]()
    if not users(entry):
        if folder.is_dir():
            found.append(Rest(folder, _size(folder), "the files of the hub"))
        found += [Rest(copy, _size(copy), "a converted copy") for copy in copies_of(folder)]
    for made in entry.builds:
        path = place.build_path(entry, made.recipe)
        if path.is_file():
            found.append(Rest(path, _size(path), f"converted to {made.recipe}"))
    return found


def users(entry: PinnedModel) -> list[str]:
    """The other entries that use the same files."""
    same = (entry.repository, entry.revision)
    return [
        other.name
        for other in _every()
        if other.name != entry.name and (other.repository, other.revision) == same
    ]


def _every() -> list[PinnedModel]:
    """The entries of every lock that is known here, also those that another's name hides."""
    known = [lockfile.read(), *(lockfile.read(path) for path in locks.layers() if path.exists())]
    return [entry for lock in known for entry in lock.models.values()]


def forget(entry: PinnedModel) -> None:
    """Drop an imported entry from the lock that it stands in; its files stay."""
    locks.record(entry.name, lambda _: None)


def rubbish(*, unpinned: bool = False) -> list[Rest]:
    """What nothing uses: unfinished downloads, converted copies whose folder is gone.

    With `unpinned`, also what no lock pins or records that is known here.
    """
    models = _every()
    top, found = place.root(), list[Rest]()
    if top.is_dir():
        found += [Rest(path, _size(path), _PARTIAL) for path in sorted(top.glob("*/*/.*.part"))]
        known = {place.build_path(e, b.recipe) for e in models if e.is_pinned for b in e.builds}
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
    return [rest for rest in found if not _is_busy(rest.path)]


def _is_made(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.name.endswith((".gguf", ".differs")) or (hidden and ".edgesppo-" in path.name)


def _is_busy(path: Path) -> bool:
    """Whether another process is getting the model that the file belongs to."""
    top = place.root()
    marks = [mark for mark in top.glob(".*.busy") if _is_held(mark)]
    if top not in path.parents or not marks:
        return False
    if path.parent == top:
        return True  # what is being made has its journal beside it
    owner, revision = path.relative_to(top).parts[:2]
    return any(mark.name == f".{owner}-{revision[:12]}.busy" for mark in marks)


def _is_held(mark: Path) -> bool:
    try:
        locked.Lock(mark, Files()).release()
    except locked.Held:
        return True
    except OSError:
        pass
    return False


def remove(rests: list[Rest]) -> int:
    """Remove them; the bytes that were freed. Raises OutputError."""
    for rest in rests:
        _remove(rest.path)
        origin = rest.path.with_suffix(".from")
        if rest.what in (_ORPHAN, "a converted copy") and origin.is_file():
            _remove(origin)
    return sum(rest.n_bytes for rest in rests)


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
