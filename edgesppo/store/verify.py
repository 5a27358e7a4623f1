"""Verify the files of a model on this machine against their pinned hashes.

Reads only, and opens no connection.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile
from edgesppo.lockfile import entries, layers
from edgesppo.store import layout
from edgesppo.system.fs import hash_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel

    # Called with the number of bytes hashed so far, and the total.
    HashProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class CheckedFile:
    """One file that was hashed again.

    `expected` is its pinned hash and `found` its hash now, or None if it cannot be read or its
    size is not `size` bytes.
    """

    path: Path
    size: int
    expected: str
    found: str | None
    is_build: bool

    @property
    def is_sound(self) -> bool:
        """Whether the file is exactly what was pinned."""
        return self.found == self.expected


def present(entry: PinnedModel) -> list[tuple[Path, int, str, bool]]:
    """Path, size in bytes, pinned hash and `is_build` of every file that should be here.

    These are all files of an import, all files of a checkpoint if any of them is present, and the
    converted files that are present.
    """
    if not entry.is_pinned:
        return []
    folder = layout.model_dir(entry)
    found = [(folder / file.path, file.size, file.digest, False) for file in entry.files]
    for build in entry.builds:
        if build.platform == layout.platform_name():
            path = layout.build_path(entry, build.recipe)
            found.append((path, build.size, build.sha256, True))
    if entry.location is not None:  # all of it was here when it was imported
        return found
    exists = [item for item in found if layout.size_of(item[0]) is not None]
    # If a part of a checkpoint is here, the rest of it counts as missing.
    missing = [item for item in found if item not in exists and not item[3]]
    started = any(not is_build for *_, is_build in exists)
    return [item for item in found if item in exists or (started and item in missing)]


def check(entry: PinnedModel, on_hash: HashProgress | None = None) -> Iterator[CheckedFile]:
    """Hash every file of the entry that should be here; `on_hash` is told the progress in bytes."""
    files, done = present(entry), 0
    total = sum(size for _, size, _, _ in files)
    for path, size, expected, is_build in files:
        found = None
        if layout.size_of(path) == size:
            hasher = entries.hasher(expected, size)
            with suppress(OSError):
                hash_file(path, hasher, on_hash, done=done, total=total)
                found = hasher.hexdigest()
        done += size
        yield CheckedFile(path, size, expected, found, is_build)


def require_sound(model: str) -> None:
    """Hash the files of a model of the lock. Raises BadModelFile where they are others.

    Another `model`, such as a path, has nothing to be held against.
    """
    entry = layers.read().models.get(model)
    if entry is None:
        return
    for file in check(entry):
        if not file.is_sound:
            raise BadModelFile(
                f"{file.path} is not what the lock says of {model}; on this machine run: "
                f"edgesppo pull {model} --repair"
            )
