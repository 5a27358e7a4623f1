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

    from edgesppo.lockfile.entries import PinnedBuild, PinnedModel

    # Called with the number of bytes hashed so far, and the total.
    HashProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ExpectedFile:
    """A file that should be here: its size in bytes, and the hashes that it may have.

    They are several where machines that share a lock rounded a conversion differently.
    """

    path: Path
    size: int
    hashes: tuple[str, ...]
    is_build: bool

    @property
    def expected(self) -> str:
        """The hash that was recorded last."""
        return self.hashes[-1]

    @property
    def is_merged(self) -> bool:
        """Whether it is a converted file that adapters are merged into."""
        return self.is_build and layout.MERGED in self.path.name


@dataclass(frozen=True)
class CheckedFile(ExpectedFile):
    """A file that was hashed again.

    `found` is its hash now, or None if it cannot be read or its size is not `size`.
    """

    found: str | None

    @property
    def is_sound(self) -> bool:
        """Whether the file is exactly what was pinned."""
        return self.found in self.hashes


def expected_files(entry: PinnedModel) -> list[ExpectedFile]:
    """Every file that should be here.

    These are all files of an import, all files of a checkpoint if any of them is present, and the
    converted files that are present.
    """
    if not entry.is_pinned:
        return []
    folder = layout.model_dir(entry)
    files = [
        ExpectedFile(folder / file.path, file.size, (file.digest,), False) for file in entry.files
    ]
    builds = list(_builds(entry))
    if entry.location is not None:  # all of it was here when it was imported
        return files + builds
    # If a part of a checkpoint is here, the rest of it counts as missing.
    started = any(map(_is_here, files))
    return [*(files if started else ()), *filter(_is_here, builds)]


def _builds(entry: PinnedModel) -> Iterator[ExpectedFile]:
    """The converted files for this platform, present or not."""
    recorded: dict[Path, list[PinnedBuild]] = {}
    for build in entry.builds:
        if build.platform == layout.platform_name():
            recorded.setdefault(layout.build_path(entry, build.recipe), []).append(build)
    for path, builds in recorded.items():
        found = layout.size_of(path)
        same = [build for build in builds if build.size == found] or builds[-1:]
        yield ExpectedFile(path, same[0].size, tuple(build.sha256 for build in same), True)


def _is_here(file: ExpectedFile) -> bool:
    return layout.size_of(file.path) is not None


def check(entry: PinnedModel, on_hash: HashProgress | None = None) -> Iterator[CheckedFile]:
    """Hash every file of the entry that should be here; `on_hash` is told the progress in bytes."""
    files, done = expected_files(entry), 0
    total = sum(file.size for file in files)
    for file in files:
        found = None
        if layout.size_of(file.path) == file.size:
            hasher = entries.hasher(file.expected, file.size)
            with suppress(OSError):
                hash_file(file.path, hasher, on_hash, done=done, total=total)
                found = hasher.hexdigest()
        done += file.size
        yield CheckedFile(file.path, file.size, file.hashes, file.is_build, found)


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
