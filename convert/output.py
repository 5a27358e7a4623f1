"""Owns the output on its way: a part file and its journal, that become the output when whole.

    .OUT.edgesppo-part       the file as far as it is, every tensor at its final place
    .OUT.edgesppo-journal    what of it is certain, and the lock

Tensors may come in any order. A tensor is claimed in the journal only after its data is on the
disk; a later run of the same conversion reads what was claimed again and goes on after it. Knows
nothing of how a tensor is made.
"""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from edgesppo.errors import DownloadError, EdgesppoError, OutputError
from edgesppo.files import NO_SPACE, write_all
from edgesppo_convert.journal import Journal
from edgesppo_convert.target import check_space, check_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.files import Bytes, Files
    from edgesppo_convert.gguf_file import FilePlan, Place

CLAIM = 64 << 20  # bytes of finished tensors after which they are claimed: a second's work or two
BLOCK = 4 << 20  # read at a time


class Output:
    """One output file, from the first byte to its name; a context manager.

    Left by an interruption or a failing disk, it keeps what is claimed, to be gone on from. Left
    by any other error, or before `commit`, it removes everything.
    """

    def __init__(
        self, path: Path, plan: FilePlan, fingerprint: str, files: Files, spare: int = 0
    ) -> None:
        self.path = path
        self.plan = plan
        self.part = part_path(path)
        self.digests: dict[str, str] = {}  # of the tensors that are done
        self._fingerprint = fingerprint
        self._spare = spare  # bytes that will be needed beside it
        self._files = files
        self._places = {place.tensor.name: place for place in plan.places}
        self._journal: Journal | None = None
        self._descriptor: int | None = None
        self._place: Place | None = None  # of the tensor that is being written
        self._at = 0
        self._hash = hashlib.sha256()
        self._claimed = 0  # tensors
        self._disk_failed = False

    def __enter__(self) -> Output:
        try:
            with self._explained():
                self._journal = Journal(journal_path(self.path), self.path, self._files)
                self._go_on_or_begin()
        except BaseException:
            self._leave(keep=self._claimed > 0)
            raise
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        keep = self._keeps(error)
        self._leave(keep=keep)
        if keep and isinstance(error, KeyboardInterrupt):
            error.args = (f"stopped; {self._kept()}",)

    def write(self, name: str, data: Bytes) -> None:
        """The next bytes of this tensor; when it is begun, the one before must be whole."""
        place = self._turn_of(name)
        if len(data) > place.end - self._at:
            raise ValueError(f"{len(data)} bytes where {name} lacks only {place.end - self._at}")
        with self._explained():
            write_all(self._files, self._open(), data, self._at)
            self._at += len(data)
            self._hash.update(data)
            if self._at == place.end:
                self._finish(place)

    def complete(self) -> None:
        """Check that every tensor has come, and wait until all of it is on the disk."""
        lacking = [name for name in self._places if name not in self.digests]
        if lacking or self._place is not None:
            raise ValueError(f"tensor {lacking[0]} has not been written")
        with self._explained():
            self._files.truncate(self._open(), self.plan.size)
            self._claim()

    def read_back(self) -> str:
        """The sha256 of the whole file; refuses it where a byte is not what was written."""
        with self._explained(), ThreadPoolExecutor(1, "edgesppo-hash") as pool:
            whole = pool.submit(self._whole)
            self._compare(0, self.plan.head, "its head")
            for place in self.plan.places:
                if self._digest(place) != self.digests[place.tensor.name]:
                    raise self._differs(f"tensor {place.tensor.name}")
                padding = bytes(place.next - place.end)
                self._compare(place.end, padding, f"what follows tensor {place.tensor.name}")
            return whole.result()

    def commit(self, *, force: bool) -> None:
        """Let it appear under its name."""
        with self._explained():
            self._close()
            check_target(self.path, force=force)  # someone may have been quicker
            self._files.replace(self.part, self.path)
            self._claimed = 0  # nothing to go on from
            self._files.sync_folder(self.path.parent)

    def _go_on_or_begin(self) -> None:
        assert self._journal is not None
        recorded = self._journal.recorded(self._fingerprint)
        self._claimed = len(recorded)
        if recorded and self._open_part():
            self.digests = dict(self._verified(recorded))
        if not self.digests:
            self._close()
            self._files.unlink(self.part)
        self._claimed = len(self.digests)
        check_space(self.path, self.plan.size - self._bytes_done() + self._spare)
        if self._descriptor is None:
            self._descriptor = self._files.create(self.part)
        self._journal.begin(self._fingerprint, anew=not self.digests)
        write_all(self._files, self._open(), self.plan.head, 0)

    def _open_part(self) -> bool:
        try:
            self._descriptor = self._files.open(self.part)
        except FileNotFoundError:
            return False
        return True

    def _verified(self, recorded: dict[str, str]) -> Iterator[tuple[str, str]]:
        """The tensors that the part file holds as recorded, up to the first that it does not."""
        for name, digest in recorded.items():
            if name not in self._places or self._digest(self._places[name]) != digest:
                return
            yield name, digest

    def _digest(self, place: Place) -> str:
        found = hashlib.sha256()
        for data in self._read(self._open(), place.at, place.end):
            found.update(data)
        return found.hexdigest()

    def _compare(self, at: int, expected: bytes, what: str) -> None:
        if b"".join(self._read(self._open(), at, at + len(expected))) != expected:
            raise self._differs(what)

    def _whole(self) -> str:
        """Runs beside the other reader, so it has a descriptor of its own."""
        descriptor, found, size = self._files.open(self.part), hashlib.sha256(), 0
        try:
            for data in self._read(descriptor, 0, self.plan.size + 1):
                found.update(data)
                size += len(data)
        finally:
            self._files.close(descriptor)
        if size != self.plan.size:
            raise self._differs("its length")
        return found.hexdigest()

    def _read(self, descriptor: int, at: int, end: int) -> Iterator[bytes]:
        while at < end:
            data = self._files.read(descriptor, min(BLOCK, end - at), at)
            if not data:
                return
            yield data
            at += len(data)

    def _differs(self, what: str) -> OutputError:
        return OutputError(
            f"{self.path} reads back otherwise than it was written ({what}); the memory or the"
            " disk may be at fault: nothing was kept"
        )

    def _turn_of(self, name: str) -> Place:
        if self._place is None:
            if name in self.digests:
                raise ValueError(f"tensor {name} is done")
            self._place = self._places[name]
            self._at, self._hash = self._place.at, hashlib.sha256()
        if self._place.tensor.name != name:
            raise ValueError(f"it is the turn of {self._place.tensor.name}, not of {name}")
        return self._place

    def _finish(self, place: Place) -> None:
        write_all(self._files, self._open(), bytes(place.next - place.end), place.end)
        self.digests[place.tensor.name] = self._hash.hexdigest()
        self._place = None
        waiting = list(self.digests)[self._claimed :]
        if sum(self._places[name].tensor.nbytes for name in waiting) >= CLAIM:
            self._claim()

    def _claim(self) -> None:
        self._files.sync(self._open())
        assert self._journal is not None
        self._journal.add(list(self.digests.items())[self._claimed :])
        self._claimed = len(self.digests)

    def _bytes_done(self) -> int:
        return sum(self._places[name].tensor.nbytes for name in self.digests)

    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"{self.path} is not open")
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._files.close(descriptor)

    def _keeps(self, error: BaseException | None) -> bool:
        """Whether what was done may be gone on from: nobody found fault with it."""
        outside = isinstance(error, DownloadError) or not isinstance(error, EdgesppoError)
        blameless = self._disk_failed or outside
        return error is not None and blameless and self._claimed > 0

    def _leave(self, *, keep: bool) -> None:
        journal, self._journal = self._journal, None
        if journal is None:
            return
        try:
            with suppress(OSError):
                self._close()
            if not keep:
                with suppress(OSError):
                    self._files.unlink(self.part)
        finally:  # a second Ctrl-C must not leave the lock behind
            with suppress(OSError):
                journal.close(remove=not keep)

    def _kept(self) -> str:
        done, all_ = self._claimed, len(self._places)
        return f"{done} of {all_} tensors are kept in {self.part}: the same command goes on there"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in NO_SPACE:
                raise OutputError(
                    f"no space left for {self.path} after {self._bytes_done():,} bytes;"
                    " free some first"
                ) from error
            self._disk_failed = error.errno != errno.EFBIG
            kept = f"; {self._kept()}" if self._keeps(error) else ""
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}{kept}"
            ) from error


def journal_path(path: Path) -> Path:
    """Where the journal of an output is."""
    return path.with_name(f".{path.name}.edgesppo-journal")


def part_path(path: Path) -> Path:
    """Where an output grows."""
    return path.with_name(f".{path.name}.edgesppo-part")


def sweep(path: Path, files: Files) -> None:
    """Remove the journal that a process killed just after its last rename has left behind."""
    journal = journal_path(path)
    if os.path.lexists(journal) and not os.path.lexists(part_path(path)):
        with suppress(OSError, OutputError):
            Journal(journal, path, files).close(remove=True)
