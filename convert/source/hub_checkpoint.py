"""Open a checkpoint on the hub: download, verify and remove it shard by shard.

The small files and the header of each shard are downloaded first, into memory: that is enough to
plan the conversion, and leaves nothing on the disk. A shard is downloaded when it is needed, beside
the output, verified against the hub's hash before it is read, and removed after use; with `keep`
it is moved to OUT.checkpoint/ when it is complete.

    .OUT.edgesppo-shard-HASH      the shard in use
    OUT.checkpoint/               with `keep`: all shards and the small files

Only the process that holds the output's lock may touch these files.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import (
    BadCheckpoint,
    DownloadError,
    EdgesppoError,
    ModelNotFound,
    SourceUnreadable,
    UnsupportedCheckpoint,
)
from edgesppo.hub.client import HubClient
from edgesppo.hub.repository import parse_repository
from edgesppo.system.content import HEAD, mistaken_for
from edgesppo.system.fs import NO_SPACE
from edgesppo.system.shell import shell_word
from edgesppo.system.signals import Terminated
from edgesppo_convert.source.checkpoint import (
    PARTS,
    SMALL_FILES,
    Checkpoint,
    Origin,
)
from edgesppo_convert.source.folder_contents import CONFIG, missing
from edgesppo_convert.source.json_reader import check_length, kind_of
from edgesppo_convert.source.safetensors import Shard
from edgesppo_convert.source.safetensors_header import header_length
from edgesppo_convert.source.shard_download import (
    ShardDownloader,
    leftover_shards,
    remove_files,
    size_of,
)
from edgesppo_convert.source.small_files import MAX_SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from edgesppo.hub.repository import RemoteFile, Repository
    from edgesppo.system.fs import FileSystem
    from edgesppo_convert.source.safetensors import Tensor

START = 1 << 16  # bytes at the front of a shard; enough for most headers
SHA256 = 64  # hex digits


class RemoteCheckpoint(Checkpoint):
    """A checkpoint on the hub at one commit; a context manager.

    `on_progress` is called with a file's name, how many bytes of it are here, and its size.
    """

    _hint = "is it a Gemma-2 model?"

    def __init__(
        self,
        hub: HubClient,
        repository: Repository,
        output: Path,
        files: FileSystem,
        *,
        keep: bool = False,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._hub = hub
        self._repository = repository
        self._output = output
        self._files = files
        self._downloader = ShardDownloader(
            hub, repository, output, files, keep=keep, on_progress=on_progress
        )
        self._listing = hub.files(repository)
        self._remote_files: dict[str, RemoteFile] = {}
        self._small = dict(self._download_small_files())
        origin = Origin(repository.name, repository.owner, repository.revision)
        self._open(str(repository), origin)

    def contains_file(self, _path: Path) -> bool:
        """Always False: no local file is part of a checkpoint on the hub."""
        return False

    def read_small(self, name: str, limit: int = MAX_SMALL) -> bytes | None:
        """A small file, already in memory; None if there is none of this name."""
        data = self._small.get(name)
        return None if data is None else check_length(data, limit, self.display_name(name))

    def display_name(self, name: str) -> str:
        """The name of a file of the checkpoint, for messages."""
        return f"{name} of {self._repository}"

    def stream(self, tensor: Tensor) -> Iterator[bytes]:
        """The bytes of a tensor, straight from the hub: not verified, and not written to disk.

        One of an adapter is read from its own file.
        """
        if tensor.shard not in self.shards:
            return super().stream(tensor)
        file, end = self._remote_files[tensor.shard.name], tensor.offset + tensor.nbytes
        return self._hub.stream(self._repository, file, tensor.offset, end)

    @property
    def extra_disk_space(self) -> int:
        """Bytes of the largest shard, or with `keep` of all files, less what is already here."""
        sizes = [file.size for file in self._remote_files.values()]
        needed = max(sizes)
        if self._downloader.keep_folder is not None:
            needed = sum(sizes) + sum(map(len, self._small.values()))
        present = (*self._kept_paths(), *leftover_shards(self._output))
        return max(0, needed - sum(map(size_of, present)))

    def shard_groups(self, needed: Collection[Shard]) -> Iterator[Collection[Shard]]:
        """Download the needed shards (with `keep`, all) one by one; each stays until the next."""
        self._downloader.keep_small(
            (self._listing[name], data) for name, data in self._small.items()
        )
        keeps = self._downloader.keep_folder is not None
        for shard in sorted(self.shards if keeps else needed, key=lambda shard: shard.name):
            path = self._downloader.download(self._remote_files[shard.name])
            if shard in needed:
                shard.attach(path)
                yield (shard,)
                shard.close()
            if not keeps:
                remove_files(self._files, [path])
        remove_files(self._files, leftover_shards(self._output))

    def temporary_paths(self) -> set[Path]:
        """Where its shards are while they are downloaded and used."""
        return set(map(self._downloader.temporary_path, self._remote_files.values()))

    def has_downloads(self) -> bool:
        """Whether there are downloaded bytes on the disk that a later run can use."""
        return any(map(size_of, (*self._kept_paths(), *leftover_shards(self._output))))

    def _kept_paths(self) -> list[Path]:
        """Where the shards are kept; empty without `keep`."""
        folder = self._downloader.keep_folder
        return [] if folder is None else [folder / name for name in self._remote_files]

    def _folder_to_explain(self) -> None:
        return None

    def _file_names(self) -> list[str]:
        return list(self._listing)

    def _load_shard(self, name: str) -> Shard:
        file = self._listing.get(name)
        if file is None:
            raise BadCheckpoint(
                f"{self._repository} has no shard {name}, but its index names it; {self._hint}"
            )
        head = self._hub.read_range(self._repository, file, 0, min(file.size, START))
        end = 8 + header_length(head, file.size, Path(name))
        head += self._hub.read_range(self._repository, file, len(head), end)
        shard = Shard(Path(name), (file.size, head[:end]))
        shard.sha256 = file.digest if len(file.digest) == SHA256 else None
        self._remote_files[name] = file
        return shard

    def _download_small_files(self) -> Iterator[tuple[str, bytes]]:
        if CONFIG not in self._listing:
            raise missing(str(self._repository), list(self._listing), CONFIG, None)
        present = [self._listing[name] for name in SMALL_FILES if name in self._listing]
        if sum(file.size for file in present) > MAX_SMALL:
            longest = max(present, key=lambda file: file.size)
            raise BadCheckpoint(
                f"{self.display_name(longest.path)} has {longest.size:,} bytes; expected at most"
                f" {MAX_SMALL:,} for all files but the weights together; {self._hint}"
            )
        for file in present:
            yield file.path, self._downloader.download_to_memory(file)


@contextmanager
def cleanup_on_error(checkpoint: Checkpoint, output: Path, files: FileSystem) -> Iterator[None]:
    """Remove downloaded shards that will not be used again; the output's lock must be held.

    On entry those of other checkpoints are removed; on an error, all of them, except where the same
    command can continue: after an interruption, or when the hub or the disk is out of reach.
    """
    remote = checkpoint if isinstance(checkpoint, RemoteCheckpoint) else None
    used = remote.temporary_paths() if remote else set()
    remove_files(files, (path for path in leftover_shards(output) if path not in used))
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        if remote and remote.has_downloads():
            error.args = (
                "stopped; what was downloaded is kept: run the same command again to continue",
            )
        else:
            remove_files(files, leftover_shards(output))
        raise
    except EdgesppoError as error:
        if not _may_succeed_later(error):
            remove_files(files, leftover_shards(output))
        raise


def check_source(source: str | Path) -> Repository | None:
    """The repository that `source` names, None for a folder; raises if neither. No network."""
    folder = Path(source)
    repository = None if folder.exists() else parse_repository(str(source))
    if repository is None and not folder.is_dir():
        raise _not_a_folder(folder)
    return repository


def open_checkpoint(
    source: str | Path,
    output: Path,
    files: FileSystem,
    *,
    keep: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Checkpoint:
    """Open `source`: a folder or, if there is no such folder, OWNER/NAME@COMMIT on the hub."""
    repository = check_source(source)
    if repository is None:
        return Checkpoint(Path(source))
    return RemoteCheckpoint(
        HubClient(), repository, output, files, keep=keep, on_progress=on_progress
    )


def _not_a_folder(path: Path) -> EdgesppoError:
    """The error for a source that is no folder: what was found, and what to type instead."""
    if not path.exists():
        return ModelNotFound(
            f"there is no checkpoint folder {path}; expected a folder with {CONFIG} and the weights"
            " as safetensors, a name (see: edgesppo list), or OWNER/NAME@COMMIT on the hub"
        )
    if _is_gguf(path):
        return UnsupportedCheckpoint(
            f"{path} is a GGUF file, so it is already converted; expected a checkpoint folder; to"
            f" chat with it: edgesppo chat {shell_word(str(path))}"
        )
    if (mistaken := _content_of(path)) is not None:
        return BadCheckpoint(f"{path} is {mistaken}; expected a checkpoint folder")
    if path.suffix in PARTS:
        return UnsupportedCheckpoint(
            f"{path} is one file of a checkpoint; expected its folder, with {CONFIG} and all the"
            f" other files: edgesppo convert {shell_word(str(path.parent))} -o OUT.gguf"
        )
    return UnsupportedCheckpoint(
        f"{path} is {kind_of(path)}; expected a checkpoint folder, with {CONFIG} and the weights"
        " as safetensors: edgesppo convert FOLDER -o OUT.gguf"
    )


def _is_gguf(path: Path) -> bool:
    return _head(path)[:4] == b"GGUF"


def _content_of(path: Path) -> str | None:
    """What a file is that is not what its name says; None if nothing is known of it."""
    head = _head(path)
    return None if path.suffix == ".safetensors" and head[8:9] == b"{" else mistaken_for(head)


def _head(path: Path) -> bytes:
    if path.is_file():  # a pipe would be waited for
        with suppress(OSError), path.open("rb") as file:
            return file.read(HEAD)
    return b""


def _may_succeed_later(error: EdgesppoError) -> bool:
    """Whether the hub or the disk failed, but the disk is not full: a later run can continue."""
    cause = error.__cause__
    disk_failed = isinstance(cause, OSError) and cause.errno not in NO_SPACE
    return isinstance(error, (DownloadError, SourceUnreadable)) or disk_failed
