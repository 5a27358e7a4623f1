"""Download and verify files of a repository: into memory, beside the output, or to be kept.

    .OUT.edgesppo-shard-HASH      a file while it is downloaded and used
    OUT.checkpoint/NAME           with `keep`: the complete, verified file

An interrupted download is resumed by the next run.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError
from edgesppo.hub.download import ATTEMPTS, Downloader
from edgesppo.system.fs import cannot_write, hash_file, write_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgesppo.hub.client import HubClient
    from edgesppo.hub.download import FetchProgress
    from edgesppo.hub.repository import RemoteFile, Repository
    from edgesppo.system.fs import FileSystem

_MARK = ".edgesppo-shard-"


class ShardDownloader:
    """Downloads the files of one repository for one output.

    `on_progress` is called with a file's name, how many bytes of it are here, and its size.
    """

    def __init__(
        self,
        hub: HubClient,
        repository: Repository,
        output: Path,
        files: FileSystem,
        *,
        keep: bool,
        on_progress: FetchProgress | None,
    ) -> None:
        self.keep_folder = output.with_name(output.name + ".checkpoint") if keep else None
        self._hub = hub
        self._repository = repository
        self._output = output
        self._files = files
        self._on_progress = on_progress or (lambda *_: None)
        self._downloader = Downloader(
            hub, repository, files, self._on_progress, ignore_unreadable=True
        )
        if self.keep_folder is not None:
            _check_folder(self.keep_folder)

    def download_to_memory(self, file: RemoteFile) -> bytes:
        """Download a file into memory; DownloadError if its hash is wrong at every attempt."""
        digests: list[str] = []
        while len(digests) < ATTEMPTS:
            data, hasher = bytearray(), file.hasher()
            for block in self._hub.stream(self._repository, file, 0, file.size):
                data += block
                hasher.update(block)
                self._on_progress(file.path, len(data), file.size)
            digests.append(hasher.hexdigest())
            if digests[-1] == file.digest:
                return bytes(data)
        raise self._downloader.mismatch(file, digests)

    def download(self, file: RemoteFile) -> Path:
        """Download a file to the disk, unless it is already kept; where it is."""
        path = self.temporary_path(file)
        if self.keep_folder is None:
            self._download_into(file, path)
            return path
        kept = self.keep_folder / file.path
        if not _is_complete(file, kept):
            self._download_into(file, path)
            self._keep(path, kept)
        return kept

    def keep_small(self, contents: Iterable[tuple[RemoteFile, bytes]]) -> None:
        """Write files that were downloaded into memory to the keep folder, if there is one."""
        if self.keep_folder is None:
            return
        try:
            self._files.make_folder(self.keep_folder, 0o777)
            for file, data in contents:
                kept = self.keep_folder / file.path
                if not _is_complete(file, kept):
                    self._write(self.temporary_path(file), data)
                    self._keep(self.temporary_path(file), kept)
        except OSError as error:
            raise cannot_write(self.keep_folder, error) from error

    def temporary_path(self, file: RemoteFile) -> Path:
        """Where a file is while it is downloaded and used."""
        return self._output.with_name(f".{self._output.name}{_MARK}{file.digest[:16]}")

    def _write(self, path: Path, data: bytes) -> None:
        self._files.unlink(path)
        descriptor = self._files.create(path)
        try:
            write_all(self._files, descriptor, data, 0)
        finally:
            self._files.close(descriptor)

    def _keep(self, path: Path, kept: Path) -> None:
        """Flush a complete file to the disk and move it to where it is kept."""
        try:
            descriptor = self._files.open(path)
            try:
                self._files.sync(descriptor)
            finally:
                self._files.close(descriptor)
            self._files.replace(path, kept)
        except OSError as error:
            raise cannot_write(kept, error) from error

    def _download_into(self, file: RemoteFile, path: Path) -> None:
        try:
            self._downloader.download(file, path)
        except OSError as error:
            raise cannot_write(path, error) from error


def leftover_shards(output: Path) -> list[Path]:
    """Every downloaded shard, complete or not, beside the output."""
    prefix = f".{output.name}{_MARK}"
    with suppress(OSError):
        return [path for path in output.parent.iterdir() if path.name.startswith(prefix)]
    return []


def remove_files(files: FileSystem, paths: Iterable[Path]) -> None:
    """Remove files; those that cannot be removed are left for the next run."""
    for path in paths:
        with suppress(OSError):
            files.unlink(path)


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 if it is missing."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _check_folder(folder: Path) -> None:
    """Refuse what is not a folder; also a link, since it may lead to another disk."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(
            f"{folder}, where --keep puts the checkpoint, is not a folder; move it away"
        )


def _is_complete(file: RemoteFile, path: Path) -> bool:
    """Whether `path` holds the complete file, by its hash."""
    hasher = file.hasher()
    if size_of(path) != file.size:
        return False
    with suppress(OSError):
        hash_file(path, hasher)
    return bool(hasher.hexdigest() == file.digest)
