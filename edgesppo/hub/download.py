"""Owns how a file of the hub gets onto the disk: gone on from, hashed, asked for again if wrong.

Knows nothing of what the file holds, nor of its name once it is whole; writes nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import DownloadError
from edgesppo.system.fs import write_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from edgesppo.hub.client import HubClient
    from edgesppo.hub.repository import RemoteFile, Repository
    from edgesppo.system.fs import FileSystem

ATTEMPTS = 2  # at a whole file whose hash is wrong
BLOCK = 1 << 20

# Hears a file's path, how many bytes are there, and of how many.
Fetched = Callable[[str, int, int], None]


def part_path(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.part")


@dataclass(frozen=True)
class Downloader:
    """The files of one repository, on their way."""

    hub: HubClient
    repository: Repository
    files: FileSystem
    fetched: Fetched
    expected: str = "the hub says {}"  # of the hash that a file must have, in an error
    tells_hashing: bool = False  # `fetched` hears of what an earlier run has left, too
    syncs: bool = False  # a file's bytes are on the disk before its hash is looked at
    forgives: bool = False  # what was left and cannot be read counts as nothing

    def bring(self, file: RemoteFile, part: Path) -> None:
        """The file, whole and right; asked for twice at most. Raises DownloadError, OSError.

        Bytes that an earlier run has left save asking for them; where they are wrong, they go,
        and what was asked for after them does not count.
        """
        digests: list[str] = []
        while len(digests) < ATTEMPTS:
            digest, from_scratch = self._bring_rest(file, part)
            if digest == file.digest:
                return
            self.files.unlink(part)
            if from_scratch:
                digests.append(digest)
        raise self.wrong(file, digests)

    def wrong(self, file: RemoteFile, digests: Sequence[str]) -> DownloadError:
        """What to say of a file that has come with these hashes."""
        return DownloadError(
            f"{file.path} of {self.repository} came with the hash {' and then '.join(digests)},"
            f" but {self.expected.format(file.digest)}; give the same command again later"
        )

    def _bring_rest(self, file: RemoteFile, part: Path) -> tuple[str, bool]:
        """Fetch what is lacking of the file; the hash of the whole, and whether all was lacking."""
        descriptor, hasher = self.files.open_or_create(part), file.hasher()
        try:
            from_scratch = os.fstat(descriptor).st_size == 0
            try:
                at = 0 if from_scratch else self._hash_left(file, descriptor, hasher)
            except OSError:
                if self.forgives:
                    return "", False
                raise
            self.files.truncate(descriptor, at)
            for data in self.hub.stream(self.repository, file, at, file.size):
                write_all(self.files, descriptor, data, at)
                hasher.update(data)
                at += len(data)
                self.fetched(file.path, at, file.size)
            if self.syncs:
                self.files.sync(descriptor)
        finally:
            self.files.close(descriptor)
        return str(hasher.hexdigest()), from_scratch

    def _hash_left(self, file: RemoteFile, descriptor: int, hasher: Any) -> int:
        """Feed the hasher with what an earlier run has left; how many bytes that are."""
        at = 0
        while at < file.size:
            data = self.files.read(descriptor, min(BLOCK, file.size - at), at)
            if not data:
                break
            hasher.update(data)
            at += len(data)
            if self.tells_hashing:
                self.fetched(file.path, at, file.size)
        return at
