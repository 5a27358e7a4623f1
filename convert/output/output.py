"""Write the output: a part file and its journal, which become the output when complete.

    .OUT.edgesppo-part       the file so far, every tensor at its final offset
    .OUT.edgesppo-journal    which tensors are finished, and the lock

Tensors may be written in any order. A tensor is recorded in the journal only after its data is on
the disk; a later run of the same conversion verifies the recorded tensors and continues from there.
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
from edgesppo.system import notices
from edgesppo.system.conversion_progress import CHECKING, READING
from edgesppo.system.fs import NO_LINKS, cannot_write
from edgesppo.system.signals import Terminated
from edgesppo_convert.output.journal import Journal
from edgesppo_convert.output.part_file import PartFile
from edgesppo_convert.output.preconditions import check_space
from edgesppo_convert.progress import StageProgress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.system.fs import Bytes, FileSystem
    from edgesppo_convert.gguf_format import FilePlan, TensorSlot
    from edgesppo_convert.progress import Report

_SHORTAGES = errors.SourceUnreadable | errors.OutOfMemory  # may pass until a later run
RECORD_EVERY = 64 << 20  # bytes of finished tensors; a second or two of work


class Output:
    """One output file, from its first byte to its final name; a context manager.

    After an interruption, or a failure of the disk or the network, it keeps the recorded tensors
    for a later run, and says so in the error. After any other error, or without `commit`, it
    removes everything. `extra` is disk space in bytes that will be needed beside the output.
    """

    def __init__(
        self,
        path: Path,
        plan: FilePlan,
        fingerprint: str,
        files: FileSystem,
        *,
        extra: int = 0,
        report: Report | None = None,
    ) -> None:
        self.path = path
        self.plan = plan
        self.part = part_path(path)
        self.digests: dict[str, str] = {}  # sha256 of every complete tensor
        self._fingerprint = fingerprint
        self._extra = extra  # bytes needed beside the output
        self._report = report or (lambda _: None)
        self._files = files
        self._slots = {slot.tensor.name: slot for slot in plan.slots}
        self._file = PartFile(self.part, files)
        self._journal: Journal | None = None
        self._slot: TensorSlot | None = None  # of the tensor that is being written
        self._offset = 0
        self._hasher = hashlib.sha256()
        self._recorded = 0  # tensors

    def __enter__(self) -> Output:
        try:
            with self._disk_errors():
                self._journal = Journal(journal_path(self.path), self.path, self._files)
                self._resume_or_start()
        except BaseException as error:
            self._end(error, keep=self._recorded > 0)
            raise
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._end(error, keep=self._recorded > 0 and _can_resume(error))

    def write(self, name: str, data: Bytes) -> None:
        """Write the next bytes of a tensor; a new one can be begun when the last is complete."""
        slot = self._slot_for(name)
        if len(data) > slot.end - self._offset:
            raise ValueError(
                f"{len(data)} bytes for {name}, which needs only {slot.end - self._offset}"
            )
        with self._disk_errors():
            self._file.write(data, self._offset)
            self._offset += len(data)
            self._hasher.update(data)
            if self._offset == slot.end:
                self._finish(slot)

    def complete(self, head: bytes | None = None) -> None:
        """Check that every tensor was written, and flush the file to the disk.

        `head`, if given, replaces the planned one; it must have the same length.
        """
        missing = [name for name in self._slots if name not in self.digests]
        if missing or self._slot is not None:
            raise ValueError(f"tensor {missing[0]} has not been written")
        if head is not None and len(head) != len(self.plan.head):
            raise ValueError(f"the head has {len(head)} bytes; expected {len(self.plan.head)}")
        with self._disk_errors():
            if head is not None:
                self.plan = replace(self.plan, head=head)
                self._file.write(head, 0)
            self._file.resize_and_sync(self.plan.size)
            self._record()

    def read_back(self) -> str:
        """Read the whole file again: its sha256. OutputError if it is not what was written."""
        on_block = StageProgress(READING, self.plan.size, self._report)
        with self._disk_errors():
            sha256, fault = self._file.read_back(self.plan, self.digests, on_block)
        if fault is not None:
            raise OutputError(
                f"{self.path} differs from what was written, in {fault}, and was removed; the"
                " memory or the disk may be faulty: check both, and run the same command again"
            )
        return sha256

    def commit(self, *, force: bool) -> None:
        """Give the file its final name; replaces an existing file only with `force`."""
        with self._disk_errors():
            self._file.close()
            if force:
                self._files.replace(self.part, self.path)
            else:
                self._rename_new()
            self._recorded = 0  # nothing to resume from
            self._files.sync_folder(self.path.parent)

    def _rename_new(self) -> None:
        """Rename, but never replace: a hard link fails if the name exists."""
        try:
            self._files.link(self.part, self.path)
        except OSError as error:
            if isinstance(error, FileExistsError) or os.path.lexists(self.path):
                raise OutputError(
                    f"the output {self.path} was created by another program meanwhile; remove"
                    " it, or use --force (force=True) to replace it"
                ) from error
            if error.errno not in NO_LINKS:
                raise
            # Without hard links, the check above must do.
            self._files.replace(self.part, self.path)

    def _resume_or_start(self) -> None:
        assert self._journal is not None
        recorded = self._journal.finished_tensors(self._fingerprint)
        self._recorded = len(recorded)
        if recorded and self._file.open():
            self._verify(recorded)
        if not self.digests:
            self._file.discard()
        if lost := len(recorded) - len(self.digests):
            notices.notify(
                f"{lost:,} of {len(recorded):,} tensors that an earlier run finished are made"
                f" again: they are not whole in {self.part}"
            )
        self._recorded = len(self.digests)
        check_space(self.path, self.plan.size - self._bytes_done() + self._extra)
        if not self.digests:
            self._file.create()
        self._journal.start(self._fingerprint, restart=not self.digests)
        self._file.write(self.plan.head, 0)

    def _verify(self, recorded: dict[str, str]) -> None:
        """Accept the recorded tensors, up to the first whose data in the part file is damaged."""
        known = {name: self._slots[name] for name in recorded if name in self._slots}
        total = sum(slot.tensor.nbytes for slot in known.values())
        on_block = StageProgress(CHECKING, total, self._report)
        for name, slot in known.items():
            if self._file.digest(slot, partial(on_block, name)) != recorded[name]:
                return
            self.digests[name] = recorded[name]

    def _slot_for(self, name: str) -> TensorSlot:
        if self._slot is None:
            if name in self.digests:
                raise ValueError(f"tensor {name} is complete already")
            self._slot = self._slots[name]
            self._offset, self._hasher = self._slot.start, hashlib.sha256()
        if self._slot.tensor.name != name:
            raise ValueError(f"expected data of {self._slot.tensor.name}, not of {name}")
        return self._slot

    def _finish(self, slot: TensorSlot) -> None:
        self._file.write(bytes(slot.padded_end - slot.end), slot.end)
        self.digests[slot.tensor.name] = self._hasher.hexdigest()
        self._slot = None
        unrecorded = list(self.digests)[self._recorded :]
        if sum(self._slots[name].tensor.nbytes for name in unrecorded) >= RECORD_EVERY:
            self._file.sync()
            self._record()

    def _record(self) -> None:
        """Record the finished tensors, whose data is on the disk by now."""
        assert self._journal is not None
        self._journal.add(list(self.digests.items())[self._recorded :])
        self._recorded = len(self.digests)

    def _bytes_done(self) -> int:
        return sum(self._slots[name].tensor.nbytes for name in self.digests)

    def _end(self, error: BaseException | None, *, keep: bool) -> None:
        journal, self._journal = self._journal, None
        if journal is None:
            return
        keep = keep and not _is_committed(self.path)  # it may have its final name already
        try:
            with suppress(OSError):
                self._file.close()
            if not keep:  # if it has its final name already, it keeps that one
                with suppress(OSError):
                    self._file.discard()
        finally:  # a second Ctrl-C must not leave the lock behind
            with suppress(OSError):
                journal.close(remove=not keep)
        if keep:
            self._explain_kept(error)

    def _explain_kept(self, error: BaseException | None) -> None:
        """Add to the error's message how to continue."""
        kept = (
            f"{self._recorded} of {len(self._slots)} tensors are kept in {self.part}:"
            " run the same command again to continue"
        )
        if isinstance(error, KeyboardInterrupt | Terminated):
            error.args = (f"stopped; {kept}",)
        elif isinstance(error, OutputError | _SHORTAGES):
            error.args = (f"{error}; {kept}",)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _can_resume(error: BaseException | None) -> bool:
    """Whether what was written is good, so that a later run can resume from it."""
    if isinstance(error, OutputError):  # a full or failing disk may work next time
        cause = error.__cause__
        return isinstance(cause, OSError) and cause.errno != errno.EFBIG
    if isinstance(error, EdgesppoError):
        return isinstance(error, errors.DownloadError | _SHORTAGES)
    return error is not None


def journal_path(path: Path) -> Path:
    """The path of an output's journal."""
    return path.with_name(f".{path.name}.edgesppo-journal")


def part_path(path: Path) -> Path:
    """The path of an output's part file."""
    return path.with_name(f".{path.name}.edgesppo-part")


def clean_up_after_kill(path: Path, files: FileSystem) -> None:
    """Clean up after a process that was killed when its output already had its final name."""
    if _is_committed(path):
        with suppress(OSError, OutputError):
            journal = Journal(journal_path(path), path, files)
            committed = _is_committed(path)
            try:
                if committed:
                    files.unlink(part_path(path))
            finally:
                journal.close(remove=committed)


def _is_committed(path: Path) -> bool:
    """Whether the part file is a second link to the output, or only a journal is left."""
    part = part_path(path)
    if not os.path.lexists(part):
        return os.path.lexists(journal_path(path))
    try:
        return os.path.samestat(part.lstat(), path.lstat())
    except OSError:
        return False
