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
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from edgesppo import errors
from edgesppo.errors import EdgesppoError, OutputError
from edgesppo.system.fs import NO_LINKS, cannot_write
from edgesppo_convert.output.journal import Journal
from edgesppo_convert.output.part_file import Part
from edgesppo_convert.output.preconditions import check_space
from edgesppo_convert.progress import CHECKING, READING, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.system.fs import Bytes, FileSystem
    from edgesppo_convert.gguf_format import FilePlan, Place
    from edgesppo_convert.progress import Report

_LACKS = errors.SourceUnreadable | errors.OutOfMemory  # what the system did not give
CLAIM = 64 << 20  # bytes of finished tensors after which they are claimed: a second's work or two


class Output:
    """One output file, from the first byte to its name; a context manager.

    Left by an interruption, or because a disk or the network failed, it keeps what is claimed, to
    be gone on from, and the error says so. Left by any other error, or before `commit`, it removes
    everything.
    """

    def __init__(
        self,
        path: Path,
        plan: FilePlan,
        fingerprint: str,
        files: FileSystem,
        *,
        spare: int = 0,
        report: Report | None = None,
    ) -> None:
        self.path = path
        self.plan = plan
        self.part = part_path(path)
        self.digests: dict[str, str] = {}  # of the tensors that are done
        self._fingerprint = fingerprint
        self._spare = spare  # bytes that will be needed beside it
        self._report = report or (lambda _: None)
        self._files = files
        self._places = {place.tensor.name: place for place in plan.places}
        self._file = Part(self.part, files)
        self._journal: Journal | None = None
        self._place: Place | None = None  # of the tensor that is being written
        self._at = 0
        self._hash = hashlib.sha256()
        self._claimed = 0  # tensors

    def __enter__(self) -> Output:
        try:
            with self._explained():
                self._journal = Journal(journal_path(self.path), self.path, self._files)
                self._go_on_or_begin()
        except BaseException as error:
            self._leave(error, keep=self._claimed > 0)
            raise
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._leave(error, keep=self._claimed > 0 and _is_blameless(error))

    def write(self, name: str, data: Bytes) -> None:
        """The next bytes of this tensor; when it is begun, the one before must be whole."""
        place = self._turn_of(name)
        if len(data) > place.end - self._at:
            raise ValueError(f"{len(data)} bytes where {name} lacks only {place.end - self._at}")
        with self._explained():
            self._file.write(data, self._at)
            self._at += len(data)
            self._hash.update(data)
            if self._at == place.end:
                self._finish(place)

    def complete(self, head: bytes | None = None) -> None:
        """Check that every tensor has come, and wait until all of it is on the disk.

        `head`, if given, takes the planned one's place; it must be as long.
        """
        lacking = [name for name in self._places if name not in self.digests]
        if lacking or self._place is not None:
            raise ValueError(f"tensor {lacking[0]} has not been written")
        if head is not None and len(head) != len(self.plan.head):
            raise ValueError(f"a head of {len(head)} bytes in place of {len(self.plan.head)}")
        with self._explained():
            if head is not None:
                self.plan = replace(self.plan, head=head)
                self._file.write(head, 0)
            self._file.settle(self.plan.size)
            self._claim()

    def read_back(self) -> str:
        """The sha256 of the whole file; refuses it where a byte is not what was written."""
        tell = _Count(READING, self.plan.size, self._report)
        with self._explained():
            sha256, fault = self._file.read_back(self.plan, self.digests, tell)
        if fault is not None:
            raise OutputError(
                f"{self.path} reads back otherwise than it was written ({fault}); the memory or"
                " the disk may be at fault: nothing was kept"
            )
        return sha256

    def commit(self, *, force: bool) -> None:
        """Let it appear under its name; without `force`, only if no other has that name."""
        with self._explained():
            self._file.close()
            if force:
                self._files.replace(self.part, self.path)
            else:
                self._take_name()
            self._claimed = 0  # nothing to go on from
            self._files.sync_folder(self.path.parent)

    def _take_name(self) -> None:
        """A link fails where the name is taken, however late; where there are none, look first."""
        try:
            self._files.link(self.part, self.path)
        except OSError as error:
            if isinstance(error, FileExistsError) or os.path.lexists(self.path):
                raise OutputError(
                    f"the output {self.path} appeared meanwhile; remove it, or replace it by"
                    " --force (force=True)"
                ) from error
            if error.errno not in NO_LINKS:
                raise
            self._files.replace(self.part, self.path)

    def _go_on_or_begin(self) -> None:
        assert self._journal is not None
        recorded = self._journal.recorded(self._fingerprint)
        self._claimed = len(recorded)
        if recorded and self._file.open():
            self._verify(recorded)
        if not self.digests:
            self._file.discard()
        self._claimed = len(self.digests)
        check_space(self.path, self.plan.size - self._bytes_done() + self._spare)
        if not self.digests:
            self._file.create()
        self._journal.begin(self._fingerprint, anew=not self.digests)
        self._file.write(self.plan.head, 0)

    def _verify(self, recorded: dict[str, str]) -> None:
        """The tensors that the part file holds as recorded, up to the first that it does not."""
        known = {name: self._places[name] for name in recorded if name in self._places}
        total = sum(place.tensor.nbytes for place in known.values())
        tell = _Count(CHECKING, total, self._report)
        for name, place in known.items():
            if self._file.digest(place, partial(tell, name)) != recorded[name]:
                return
            self.digests[name] = recorded[name]

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
        self._file.write(bytes(place.next - place.end), place.end)
        self.digests[place.tensor.name] = self._hash.hexdigest()
        self._place = None
        waiting = list(self.digests)[self._claimed :]
        if sum(self._places[name].tensor.nbytes for name in waiting) >= CLAIM:
            self._file.sync()
            self._claim()

    def _claim(self) -> None:
        """Write down what is on the disk by now."""
        assert self._journal is not None
        self._journal.add(list(self.digests.items())[self._claimed :])
        self._claimed = len(self.digests)

    def _bytes_done(self) -> int:
        return sum(self._places[name].tensor.nbytes for name in self.digests)

    def _leave(self, error: BaseException | None, *, keep: bool) -> None:
        journal, self._journal = self._journal, None
        if journal is None:
            return
        keep = keep and not _is_over(self.path)  # it may have its name already
        try:
            with suppress(OSError):
                self._file.close()
            if not keep:  # where it has become the output, that name stays
                with suppress(OSError):
                    self._file.discard()
        finally:  # a second Ctrl-C must not leave the lock behind
            with suppress(OSError):
                journal.close(remove=not keep)
        if keep:
            self._say_kept(error)

    def _say_kept(self, error: BaseException | None) -> None:
        """Let the error tell how to go on."""
        kept = (
            f"{self._claimed} of {len(self._places)} tensors are kept in {self.part}:"
            " the same command goes on there"
        )
        if isinstance(error, KeyboardInterrupt):
            error.args = (f"stopped; {kept}",)
        elif isinstance(error, OutputError | _LACKS):
            error.args = (f"{error}; {kept}",)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error


class _Count:
    """Adds up the bytes of a stage, and tells of them."""

    def __init__(self, stage: str, total: int, report: Report) -> None:
        self._stage = stage
        self._done = 0
        self._total = total
        self._report = report
        report(Progress("", 0, total, stage))

    def __call__(self, tensor: str, size: int) -> None:
        self._done += size
        self._report(Progress(tensor, self._done, self._total, self._stage))


def _is_blameless(error: BaseException | None) -> bool:
    """Whether nobody found fault with what was done: it may be gone on from."""
    if isinstance(error, OutputError):  # a disk that is full or fails may do better next time
        cause = error.__cause__
        return isinstance(cause, OSError) and cause.errno != errno.EFBIG
    if isinstance(error, EdgesppoError):
        return isinstance(error, errors.DownloadError | _LACKS)
    return error is not None


def journal_path(path: Path) -> Path:
    """Where the journal of an output is."""
    return path.with_name(f".{path.name}.edgesppo-journal")


def part_path(path: Path) -> Path:
    """Where an output grows."""
    return path.with_name(f".{path.name}.edgesppo-part")


def sweep(path: Path, files: FileSystem) -> None:
    """Tidy up after a process that was killed when its output had its name already."""
    if _is_over(path):
        with suppress(OSError, OutputError):
            held = Journal(journal_path(path), path, files)
            over = _is_over(path)
            try:
                if over:
                    files.unlink(part_path(path))
            finally:
                held.close(remove=over)


def _is_over(path: Path) -> bool:
    """Whether the part file is the output itself, by its first name; or only a journal is left."""
    part = part_path(path)
    if not os.path.lexists(part):
        return os.path.lexists(journal_path(path))
    try:
        return os.path.samestat(part.lstat(), path.lstat())
    except OSError:
        return False
