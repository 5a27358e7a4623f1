"""Owns a checkpoint that lies on the hub: fetched, checked and dropped shard by shard.

Its small files are fetched first, into memory, and of each shard the header: that is enough to
plan everything, and leaves nothing on the disk. A shard itself is fetched when its turn comes,
beside the output, held against the hub's hash before it is read, and removed when it has been
used. Where all is to be kept, it gets its own name once it is whole.

    .OUT.edgesppo-shard-HASH      the shard whose turn it is
    OUT.checkpoint/               all of them, and the small files, where they are to be kept

What lies beside the output belongs to whoever holds the output's lock: before, nothing is touched.
"""

from __future__ import annotations

import shlex
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
from edgesppo.system.fs import NO_SPACE
from edgesppo_convert.source.checkpoint import (
    CONFIG,
    MAX_SMALL,
    PARTS,
    SMALL_FILES,
    Checkpoint,
    Origin,
)
from edgesppo_convert.source.json_reader import check_length
from edgesppo_convert.source.safetensors import Shard, header_length
from edgesppo_convert.source.shard_download import Fetcher, drop, left_over, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from edgesppo.hub.repository import RemoteFile, Repository
    from edgesppo.system.fs import FileSystem
    from edgesppo_convert.source.safetensors import Tensor

START = 1 << 16  # bytes of a shard that mostly hold its header
SHA256 = 64  # digits


class RemoteCheckpoint(Checkpoint):
    """A checkpoint on the hub at one commit; a context manager."""

    _hint = "is it a Gemma-2 model?"

    def __init__(
        self,
        hub: HubClient,
        repository: Repository,
        output: Path,
        files: FileSystem,
        *,
        keep: bool = False,
        fetched: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._hub = hub
        self._repository = repository
        self._output = output
        self._files = files
        self._fetcher = Fetcher(hub, repository, output, files, keep=keep, fetched=fetched)
        self._listing = hub.files(repository)
        self._announced: dict[str, RemoteFile] = {}
        self._small = dict(self._fetch_small())
        origin = Origin(repository.name, repository.owner, repository.revision)
        self._open(str(repository), origin)

    def holds(self, _path: Path) -> bool:
        """The hub has no file of this machine."""
        return False

    def small(self, name: str, limit: int = MAX_SMALL) -> bytes | None:
        """One of the small files, from memory."""
        data = self._small.get(name)
        return None if data is None else check_length(data, limit, self.place(name))

    def place(self, name: str) -> str:
        """What a message calls this file."""
        return f"{name} of {self._repository}"

    def stored(self, tensor: Tensor) -> Iterator[bytes]:
        """Straight from the hub, unverified, and kept nowhere."""
        file, end = self._announced[tensor.shard.name], tensor.offset + tensor.nbytes
        return self._hub.stream(self._repository, file, tensor.offset, end)

    @property
    def spare(self) -> int:
        """The longest shard, or all that are to be kept, less what is there already."""
        sizes = [file.size for file in self._announced.values()]
        needed = max(sizes)
        if self._fetcher.kept is not None:
            needed = sum(sizes) + sum(map(len, self._small.values()))
        there = (*self._kept(), *left_over(self._output))
        return max(0, needed - sum(map(size_of, there)))

    def visits(self, needed: Collection[Shard]) -> Iterator[Collection[Shard]]:
        """One shard after the other, each there while it is looked at."""
        self._fetcher.keep_small((self._listing[name], data) for name, data in self._small.items())
        keeps = self._fetcher.kept is not None
        wanted = self.shards if keeps else needed
        for shard in sorted(wanted, key=lambda shard: shard.name):
            place = self._fetcher.fetch(self._announced[shard.name])
            if shard in needed:
                shard.arrive(place)
                yield (shard,)
                shard.close()
            if not keeps:
                drop(self._files, [place])
        drop(self._files, left_over(self._output))

    def passing(self) -> set[Path]:
        """Where its shards lie for a while."""
        return set(map(self._fetcher.passing, self._announced.values()))

    def has_some(self) -> bool:
        """Whether a later run will find something that this one, or one before, has fetched."""
        return any(map(size_of, (*self._kept(), *left_over(self._output))))

    def _kept(self) -> list[Path]:
        """Where its shards are kept."""
        kept = self._fetcher.kept
        return [] if kept is None else [kept / name for name in self._announced]

    def _names(self) -> list[str]:
        return list(self._listing)

    def _shard(self, name: str) -> Shard:
        file = self._listing.get(name)
        if file is None:
            raise BadCheckpoint(f"{self._repository} has no shard {name}, which its index names")
        head = self._hub.read_range(self._repository, file, 0, min(file.size, START))
        end = 8 + header_length(head, file.size, Path(name))
        head += self._hub.read_range(self._repository, file, len(head), end)
        shard = Shard(Path(name), (file.size, head[:end]))
        shard.sha256 = file.digest if len(file.digest) == SHA256 else None
        self._announced[name] = file
        return shard

    def _fetch_small(self) -> Iterator[tuple[str, bytes]]:
        if CONFIG not in self._listing:
            raise BadCheckpoint(f"{self._repository} has no {CONFIG}; {self._hint}")
        found = [self._listing[name] for name in SMALL_FILES if name in self._listing]
        if sum(file.size for file in found) > MAX_SMALL:
            longest = max(found, key=lambda file: file.size)
            raise BadCheckpoint(
                f"{self.place(longest.path)} has {longest.size:,} bytes; expected at most"
                f" {MAX_SMALL:,} in all files but the weights; {self._hint}"
            )
        for file in found:
            yield file.path, self._fetcher.in_memory(file)


@contextmanager
def cleanup_on_error(checkpoint: Checkpoint, output: Path, files: FileSystem) -> Iterator[None]:
    """While the output's lock is held: drop what nobody will use, and after a fault everything.

    After an interruption, or when hub or disk are out of reach, the same command goes on.
    """
    remote = checkpoint if isinstance(checkpoint, RemoteCheckpoint) else None
    used = remote.passing() if remote else set()
    drop(files, (place for place in left_over(output) if place not in used))
    try:
        yield
    except KeyboardInterrupt as error:
        if remote and remote.has_some():
            error.args = ("stopped; what was fetched is kept: the same command goes on there",)
        else:
            drop(files, left_over(output))
        raise
    except EdgesppoError as error:
        if not _may_pass(error):
            drop(files, left_over(output))
        raise


def check_source(source: str | Path) -> Repository | None:
    """The repository that is meant, None for a folder; refuses what is neither. Asks nobody."""
    folder = Path(source)
    repository = None if folder.exists() else parse_repository(str(source))
    if repository is None and not folder.is_dir():
        raise _no_folder(folder)
    return repository


def open_checkpoint(
    source: str | Path,
    output: Path,
    files: FileSystem,
    *,
    keep: bool = False,
    fetched: Callable[[str, int, int], None] | None = None,
) -> Checkpoint:
    """A folder, or OWNER/NAME@COMMIT on the hub where there is no such folder."""
    repository = check_source(source)
    if repository is None:
        return Checkpoint(Path(source))
    return RemoteCheckpoint(HubClient(), repository, output, files, keep=keep, fetched=fetched)


def _no_folder(path: Path) -> EdgesppoError:
    """What there is instead of a checkpoint's folder, and what to type."""
    if not path.exists():
        return ModelNotFound(
            f"no checkpoint folder {path}; expected a folder with {CONFIG} and the weights as"
            " safetensors, a name (see: edgesppo list), or OWNER/NAME@COMMIT on the hub"
        )
    if _begins_as_gguf(path):
        return UnsupportedCheckpoint(
            f"{path} is a GGUF file, so it is converted already; expected a checkpoint's folder; to"
            f" use the file: edgesppo chat {shlex.quote(str(path))}"
        )
    if path.suffix in PARTS:
        return UnsupportedCheckpoint(
            f"{path} is one file of a checkpoint; expected its folder, with {CONFIG} and all of the"
            f" rest: edgesppo convert {shlex.quote(str(path.parent))} -o OUT.gguf"
        )
    return UnsupportedCheckpoint(
        f"{path} is a file; expected a checkpoint's folder, with {CONFIG} and the weights as"
        " safetensors: edgesppo convert FOLDER -o OUT.gguf"
    )


def _begins_as_gguf(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(4) == b"GGUF"
    return False


def _may_pass(error: EdgesppoError) -> bool:
    """Whether nobody found fault with what was fetched, and room is not what it lacks."""
    cause = error.__cause__
    broken = isinstance(cause, OSError) and cause.errno not in NO_SPACE
    return isinstance(error, (DownloadError, SourceUnreadable)) or broken
