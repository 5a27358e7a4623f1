"""Owns how a file of the hub gets here: into memory, or beside the output, whole and right.

    .OUT.edgesppo-shard-HASH      a file on its way, gone on from by the next run
    OUT.checkpoint/NAME           the same once it is whole, where it is to be kept

Knows nothing of what the files hold.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError
from edgesppo.hub.download import ATTEMPTS, Downloader
from edgesppo.system.fs import blocks, cannot_write, write_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgesppo.hub.client import HubClient
    from edgesppo.hub.download import FetchProgress
    from edgesppo.hub.repository import RemoteFile, Repository
    from edgesppo.system.fs import FileSystem

_MARK = ".edgesppo-shard-"


class Fetcher:
    """The files of a repository; `fetched` hears a name, how many bytes are there, of how many."""

    def __init__(
        self,
        hub: HubClient,
        repository: Repository,
        output: Path,
        files: FileSystem,
        *,
        keep: bool,
        fetched: FetchProgress | None,
    ) -> None:
        self.kept = output.with_name(output.name + ".checkpoint") if keep else None
        self._hub = hub
        self._repository = repository
        self._output = output
        self._files = files
        self._fetched = fetched or (lambda *_: None)
        self._downloader = Downloader(hub, repository, files, self._fetched, ignore_unreadable=True)
        if self.kept is not None:
            _check_folder(self.kept)

    def in_memory(self, file: RemoteFile) -> bytes:
        """The file's bytes."""
        digests: list[str] = []
        while len(digests) < ATTEMPTS:
            data, hasher = bytearray(), file.hasher()
            for block in self._hub.stream(self._repository, file, 0, file.size):
                data += block
                hasher.update(block)
                self._fetched(file.path, len(data), file.size)
            digests.append(hasher.hexdigest())
            if digests[-1] == file.digest:
                return bytes(data)
        raise self._downloader.mismatch(file, digests)

    def fetch(self, file: RemoteFile) -> Path:
        """Have the file beside the output, or where it is kept: that place."""
        place = self.passing(file)
        if self.kept is None:
            self._fetch_into(file, place)
            return place
        kept = self.kept / file.path
        if not _is(file, kept):
            self._fetch_into(file, place)
            self._keep(place, kept)
        return kept

    def keep_small(self, found: Iterable[tuple[RemoteFile, bytes]]) -> None:
        """Write files that were fetched into memory to where they are kept, if they are."""
        if self.kept is None:
            return
        try:
            self._files.make_folder(self.kept, 0o777)
            for file, data in found:
                if not _is(file, self.kept / file.path):
                    self._write(self.passing(file), data)
                    self._keep(self.passing(file), self.kept / file.path)
        except OSError as error:
            raise cannot_write(self.kept, error) from error

    def passing(self, file: RemoteFile) -> Path:
        """Where it lies for a while."""
        return self._output.with_name(f".{self._output.name}{_MARK}{file.digest[:16]}")

    def _write(self, place: Path, data: bytes) -> None:
        self._files.unlink(place)
        descriptor = self._files.create(place)
        try:
            write_all(self._files, descriptor, data, 0)
        finally:
            self._files.close(descriptor)

    def _keep(self, place: Path, kept: Path) -> None:
        """Give a whole file the name that it keeps."""
        try:
            descriptor = self._files.open(place)
            try:
                self._files.sync(descriptor)
            finally:
                self._files.close(descriptor)
            self._files.replace(place, kept)
        except OSError as error:
            raise cannot_write(kept, error) from error

    def _fetch_into(self, file: RemoteFile, place: Path) -> None:
        try:
            self._downloader.download(file, place)
        except OSError as error:
            raise cannot_write(place, error) from error


def left_over(output: Path) -> list[Path]:
    """Every shard that lies beside the output."""
    start = f".{output.name}{_MARK}"
    with suppress(OSError):
        return [path for path in output.parent.iterdir() if path.name.startswith(start)]
    return []


def drop(files: FileSystem, places: Iterable[Path]) -> None:
    """Remove them as far as possible; the next run tries again."""
    for place in places:
        with suppress(OSError):
            files.unlink(place)


def size_of(path: Path) -> int:
    """Its bytes, none where it is not there."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _check_folder(folder: Path) -> None:
    """Refuse what cannot take the files; they are moved there, so it must be on the same disk."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder}, where the checkpoint is kept, is no folder; move it away")


def _is(file: RemoteFile, path: Path) -> bool:
    """Whether the file lies there, whole and right."""
    hasher = file.hasher()
    if size_of(path) != file.size:
        return False
    with suppress(OSError):
        for data in blocks(path):
            hasher.update(data)
    return bool(hasher.hexdigest() == file.digest)
