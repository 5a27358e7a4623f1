"""Resume and verify one download.

The file grows under a partial name (`part_path`); the caller renames it once it is verified.
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

ATTEMPTS = 2  # downloads of a whole file before a wrong hash is an error
BLOCK = 1 << 20

# Called with a file's path, the bytes present so far, and the file's size in bytes.
FetchProgress = Callable[[str, int, int], None]


def part_path(path: Path) -> Path:
    """The name of a file while it is being downloaded."""
    return path.with_name(f".{path.name}.part")


@dataclass(frozen=True)
class Downloader:
    """Downloads files of one repository, one at a time."""

    hub: HubClient
    repository: Repository
    files: FileSystem
    on_fetch: FetchProgress
    expected: str = "the hub says {}"  # how an error names the hash that a file must have
    report_hashing: bool = False  # call `on_fetch` while bytes of an earlier run are hashed, too
    fsync: bool = False  # flush a file to the disk before its hash is compared
    ignore_unreadable: bool = False  # download from scratch where a partial file cannot be read

    def download(self, file: RemoteFile, part: Path) -> None:
        """Download the file to `part` and verify its hash. Raises DownloadError, OSError.

        Resumes from the bytes that an earlier run left in `part`. A wrong hash removes them and
        starts again; only complete downloads count towards ATTEMPTS.
        """
        digests: list[str] = []
        while len(digests) < ATTEMPTS:
            digest, from_scratch = self._resume(file, part)
            if digest == file.digest:
                return
            self.files.unlink(part)
            if from_scratch:
                digests.append(digest)
        raise self.mismatch(file, digests)

    def mismatch(self, file: RemoteFile, digests: Sequence[str]) -> DownloadError:
        """The error for a file that arrived with these wrong hashes."""
        hashes = ", then with ".join(digests)
        return DownloadError(
            f"{file.path} of {self.repository} arrived with the hash {hashes},"
            f" but {self.expected.format(file.digest)}; run the same command again later"
        )

    def _resume(self, file: RemoteFile, part: Path) -> tuple[str, bool]:
        """Fetch the missing bytes; returns the file's hash, and whether all bytes were missing."""
        descriptor, hasher = self.files.open_or_create(part), file.hasher()
        try:
            from_scratch = os.fstat(descriptor).st_size == 0
            try:
                at = 0 if from_scratch else self._hash_existing(file, descriptor, hasher)
            except OSError:
                if self.ignore_unreadable:
                    return "", False
                raise
            self.files.truncate(descriptor, at)
            for data in self.hub.stream(self.repository, file, at, file.size):
                write_all(self.files, descriptor, data, at)
                hasher.update(data)
                at += len(data)
                self.on_fetch(file.path, at, file.size)
            if self.fsync:
                self.files.sync(descriptor)
        finally:
            self.files.close(descriptor)
        return str(hasher.hexdigest()), from_scratch

    def _hash_existing(self, file: RemoteFile, descriptor: int, hasher: Any) -> int:
        """Feed the hasher with the bytes of an earlier run; returns their number."""
        at = 0
        while at < file.size:
            data = self.files.read(descriptor, min(BLOCK, file.size - at), at)
            if not data:
                break
            hasher.update(data)
            at += len(data)
            if self.report_hashing:
                self.on_fetch(file.path, at, file.size)
        return at
