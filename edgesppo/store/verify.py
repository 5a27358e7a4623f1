"""Owns what becomes of files that are here: looked at again, removed, forgotten.

Touches nothing outside of our own folders, and nothing that another entry uses. Opens no
connection.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.lockfile import entries
from edgesppo.store import layout
from edgesppo.system.fs import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel

    # Hears how many bytes were hashed, and of how many.
    Hashed = Callable[[int, int], None]


@dataclass(frozen=True)
class CheckedFile:
    """One file that was hashed again: `found` is what it has now, None where it was not read.

    That is where its size is another than `size`, in bytes, or where it cannot be read.
    """

    path: Path
    size: int
    expected: str
    found: str | None
    is_build: bool

    @property
    def is_sound(self) -> bool:
        """Whether it is what was pinned."""
        return self.found == self.expected


def present(entry: PinnedModel) -> list[tuple[Path, int, str, bool]]:
    """Path, size and pinned hash of every file that should be here, whatever is there.

    That is every file of an import, every file of a checkpoint of which any is here, and every
    build that is.
    """
    if not entry.is_pinned:
        return []
    folder = layout.model_dir(entry)
    found = [(folder / file.path, file.size, file.digest, False) for file in entry.files]
    for made in entry.builds:
        if made.platform == layout.platform_name():
            path = layout.build_path(entry, made.recipe)
            found.append((path, made.size, made.sha256, True))
    if entry.location is not None:  # it was here when it was imported
        return found
    there = [item for item in found if layout.size_of(item[0]) is not None]
    # A checkpoint of which a part is here is one that lacks the rest.
    lacking = [item for item in found if item not in there and not item[3]]
    started = any(not is_build for *_, is_build in there)
    return [item for item in found if item in there or (started and item in lacking)]


def check(entry: PinnedModel, hashed: Hashed | None = None) -> Iterator[CheckedFile]:
    """Hash every file of the entry that is here."""
    there, done = present(entry), 0
    total = sum(size for _, size, _, _ in there)
    for path, size, expected, is_build in there:
        found = None
        if layout.size_of(path) == size:
            hasher = entries.hasher(expected, size)
            with suppress(OSError):
                at = done
                for data in blocks(path):
                    hasher.update(data)
                    at += len(data)
                    if hashed is not None:
                        hashed(min(total, at), total)
                found = hasher.hexdigest()
        done += size
        yield CheckedFile(path, size, expected, found, is_build)
