"""Owns a checkpoint that lies on the hub: fetched, checked and dropped shard by shard.

Its small files are fetched first, into a temporary folder, and of each shard the header: that is
enough to plan everything. A shard itself is fetched when its turn comes, beside the output, held
against the hub's hash before it is read, and removed when it has been used.

    .OUT.edgesppo-shard-HASH      the shard whose turn it is
    OUT.checkpoint/               all of them, and the small files, where they are to be kept
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint, DownloadError, EdgesppoError
from edgesppo.files import cannot_write, write_all
from edgesppo.hub import Hub
from edgesppo.repository import parse_repository
from edgesppo_convert.checkpoint import BLOCK, CONFIG, SMALL_FILES, Checkpoint, Origin
from edgesppo_convert.safetensors import Shard, header_length

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from edgesppo.files import Files
    from edgesppo.repository import RemoteFile, Repository
    from edgesppo_convert.safetensors import Tensor

MAX_SMALL = 64 << 20
START = 1 << 16  # bytes of a shard that mostly hold its header
SHA256 = 64  # digits
_MARK = ".edgesppo-shard-"


class RemoteCheckpoint(Checkpoint):
    """A checkpoint on the hub at one commit; a context manager."""

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        output: Path,
        files: Files,
        *,
        keep: bool = False,
        fetched: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._hub = hub
        self._repository = repository
        self._output = output
        self._files = files
        self._keep = keep
        self._fetched = fetched or (lambda *_: None)
        self._listing = hub.files(repository)
        self._announced: dict[str, RemoteFile] = {}
        self._temporary = TemporaryDirectory(prefix="edgesppo-")
        try:
            folder = Path(self._temporary.name)
            self._fetch_small(folder)
            super().__init__(folder)
        except BaseException:
            self._temporary.cleanup()
            raise
        self.origin = Origin(repository.name, repository.owner, repository.revision)
        self.spare = max(file.size for file in self._announced.values())

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self.close()
        # After an interruption, or when the hub is out of reach, the same command goes on.
        if isinstance(error, KeyboardInterrupt) and not error.args and any(self._left()):
            error.args = ("stopped; what was fetched is kept: the same command goes on there",)
        if isinstance(error, EdgesppoError) and not isinstance(error, DownloadError):
            self._drop(*self._left())

    def close(self) -> None:
        """Close every shard and remove the small files."""
        super().close()
        self._temporary.cleanup()

    def holds(self, _path: Path) -> bool:
        """The hub has no file of this machine."""
        return False

    def stored(self, tensor: Tensor) -> Iterator[bytes]:
        """Straight from the hub, unverified, and kept nowhere."""
        file, end = self._announced[tensor.shard.name], tensor.offset + tensor.nbytes
        return self._hub.stream(self._repository, file, tensor.offset, end)

    def visits(self, needed: Collection[Shard]) -> Iterator[Collection[Shard]]:
        """One shard after the other, each there while it is looked at."""
        if self._keep:
            self._keep_small()
        for shard in sorted(needed, key=lambda shard: shard.name):
            file = self._announced[shard.name]
            place = self._place(file)
            self._checked(file, place)
            shard.arrive(place)
            yield (shard,)
            shard.close()
            self._drop(place)
        self._drop(*self._left())  # what a run that was killed has left

    def _names(self) -> list[str]:
        return list(self._listing)

    def _shard(self, name: str) -> Shard:
        file = self._listing.get(name)
        if file is None:
            raise BadCheckpoint(f"{self._repository} has no shard {name}, which its index names")
        head = self._hub.span(self._repository, file, 0, min(file.size, START))
        end = 8 + header_length(head, file.size, Path(name))
        head += self._hub.span(self._repository, file, len(head), end)
        shard = Shard(Path(name), (file.size, head[:end]))
        shard.sha256 = file.digest if len(file.digest) == SHA256 else None
        self._announced[name] = file
        return shard

    def _left(self) -> Iterator[Path]:
        """Every shard that lies beside the output."""
        start = f".{self._output.name}{_MARK}"
        return (path for path in self._output.parent.iterdir() if path.name.startswith(start))

    def _drop(self, *places: Path) -> None:
        for place in places if not self._keep else ():
            with suppress(OSError):
                self._files.unlink(place)

    def _place(self, file: RemoteFile) -> Path:
        if self._keep:
            return self._output.with_name(self._output.name + ".checkpoint") / file.path
        name = f".{self._output.name}{_MARK}{file.digest[:16]}"
        return self._output.with_name(name)

    def _keep_small(self) -> None:
        for path in self.folder.iterdir():
            place = self._place(self._listing[path.name])
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, place)

    def _fetch_small(self, folder: Path) -> None:
        if CONFIG not in self._listing:
            raise BadCheckpoint(f"{self._repository} has no {CONFIG}; is it a Gemma-2 model?")
        for name in SMALL_FILES:
            file = self._listing.get(name)
            if file is None:
                continue
            if file.size > MAX_SMALL:
                raise BadCheckpoint(f"{name} of {self._repository} has {file.size:,} bytes: no")
            self._checked(file, folder / name)

    def _checked(self, file: RemoteFile, place: Path) -> None:
        """The file, whole and with the hash that the hub has told; asked for twice at most."""
        found = []
        for _ in range(2):
            try:
                found.append(self._fetch(file, place))
                if found[-1] == file.digest:
                    return
                self._files.unlink(place)
            except OSError as error:
                raise cannot_write(place, error) from error
        raise DownloadError(
            f"{file.path} of {self._repository} came with the hash {' and then '.join(found)}, but"
            f" the hub says {file.digest}; give the same command again later"
        )

    def _fetch(self, file: RemoteFile, place: Path) -> str:
        """Fetch what is lacking of the file; the hash of the whole."""
        descriptor, hasher, at = self._files.open_or_create(place), file.hasher(), 0
        try:
            while data := self._files.read(descriptor, min(BLOCK, file.size - at), at):
                hasher.update(data)
                at += len(data)
            self._files.truncate(descriptor, at)
            for data in self._hub.stream(self._repository, file, at, file.size):
                write_all(self._files, descriptor, data, at)
                hasher.update(data)
                at += len(data)
                self._fetched(file.path, at, file.size)
        finally:
            self._files.close(descriptor)
        return str(hasher.hexdigest())


def open_checkpoint(
    source: str | Path,
    output: Path,
    files: Files,
    *,
    keep: bool = False,
    fetched: Callable[[str, int, int], None] | None = None,
) -> Checkpoint:
    """A folder, or OWNER/NAME@COMMIT on the hub where there is no such folder."""
    folder = Path(source)
    repository = None if folder.exists() else parse_repository(str(source))
    if repository is None:
        return Checkpoint(folder)
    return RemoteCheckpoint(Hub(), repository, output, files, keep=keep, fetched=fetched)
