"""`ResultFile`: the output of a batch, which can be continued after the process was killed.

    OUT            one line of JSON for each row that is done, appended as the rows are done
    OUT.journal    system/jsonl: a head that says what OUT belongs to, then for each line of OUT
                   its row, where it ends and its checksum

A line is appended to OUT before the journal says so. So after a crash at any moment the journal's
lines tell which rows are done, and what follows them in OUT is one line that was not finished, or
whose line of the journal was lost: it is cut off, and its row is done again. Every second both
files are synced, OUT first; after a power cut, lines at the end may be missing or wrong, and their
rows are done again, too.
"""

from __future__ import annotations

import contextlib
import json
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.batches.head import VERSION
from edgesppo.batches.result import BatchResult
from edgesppo.errors import OutputError, UsageError
from edgesppo.system import filelock, jsonl
from edgesppo.system.filelock import open_locked
from edgesppo.system.fs import FileSystem, cannot_write, read_all, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.batches.head import Head
    from edgesppo.batches.input import Key

SUFFIX = ".journal"
_MAX_JOURNAL = 1 << 32
_SYNC_S = 1.0
# How a line of ours begins: what else is in OUT is never cut off.
_BEGINNINGS = (b'{"row": ', b'{"id": "batch_req_')


@dataclass(frozen=True)
class _Line:
    """A line of OUT: its row and answer, where it begins and ends, and its checksum."""

    key: Key
    start: int
    end: int
    crc: int


class ResultFile:
    """The output file of one batch, open for appending; a context manager.

    Opening it takes up what an earlier run of the same batch wrote: `done` are the rows that are
    in it. Raises UsageError for a file that is not of this batch, with what to do, and OutputError
    where it cannot be written or another process is writing it.
    """

    def __init__(self, path: Path, head: Head, files: FileSystem | None = None) -> None:
        self.path = path
        self.journal = path.with_name(path.name + SUFFIX)
        self._files = files or FileSystem()
        self._lines: list[_Line] = []
        self._journal_end = self._journal_crc = 0
        self._synced_at = time.monotonic()
        check_place(path)
        if _has_content(path) and not self.journal.exists():  # none is made beside another's file
            raise self._foreign
        try:
            self._journal = open_locked(self.journal, self._files)
        except filelock.LockHeld as held:
            raise filelock.being_written(path, held) from None
        except OSError as error:
            raise cannot_write(self.journal, error) from None
        self._out: int | None = None
        self._closed = False
        try:
            self._resume(head, existed=_has_content(path))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise cannot_write(path, error) from None
            raise

    @property
    def done(self) -> set[Key]:
        """The rows (and answers) that are in the file."""
        return {line.key for line in self._lines}

    def results(self) -> Iterator[BatchResult]:
        """What is in the file so far, line by line. Raises OutputError if it cannot be read."""
        for line in list(self._lines):
            try:
                text = self._read(line)
            except OSError as error:
                raise OutputError(
                    f"{self.path}: cannot be read: {error.strerror or error}"
                ) from None
            yield BatchResult(line.key, json.loads(text))

    def append(self, result: BatchResult) -> None:
        """Add a row. Raises OutputError if it cannot be written; the file stays whole."""
        assert self._out is not None, "the file is open"
        data = json.dumps(dict(result), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        start = self._end
        line = _Line(result.key, start, start + len(data), zlib.crc32(data))
        try:
            write_all(self._files, self._out, data, start)
            self._note({"row": line.key, "end": line.end, "crc": line.crc})
        except OSError as error:
            with suppress(OSError):
                self._files.truncate(self._out, start)
            raise cannot_write(self.path, error) from None
        self._lines.append(line)
        if time.monotonic() - self._synced_at > _SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Wait until everything is on the disk. Raises OutputError."""
        assert self._out is not None, "the file is open"
        try:
            self._files.sync(self._out)
            self._files.sync(self._journal)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and close the files, and release the lock."""
        if self._closed:
            return
        self._closed = True
        descriptors = [self._journal] if self._out is None else [self._out, self._journal]
        with contextlib.ExitStack() as stack:
            for descriptor in descriptors:
                stack.callback(self._close, descriptor)
            with suppress(OSError):
                for descriptor in descriptors:
                    self._files.sync(descriptor)

    def _close(self, descriptor: int) -> None:
        with suppress(OSError):
            self._files.close(descriptor)

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _end(self) -> int:
        return self._lines[-1].end if self._lines else 0

    @property
    def _advice(self) -> str:
        return f"use another output, or remove {self.path} and {self.journal.name} to start anew"

    @property
    def _foreign(self) -> UsageError:
        state = "is empty" if self.journal.exists() else "does not exist"
        return UsageError(
            f"{self.path} exists, and is not of a batch that can be continued "
            f"({self.journal.name} beside it {state}); use another output, or remove it"
        )

    def _note(self, *events: dict[str, Any]) -> None:
        """Append lines to the journal."""
        data, crc = jsonl.encode(events, self._journal_crc)
        write_all(self._files, self._journal, data, self._journal_end)
        self._journal_end, self._journal_crc = self._journal_end + len(data), crc

    def _resume(self, head: Head, *, existed: bool) -> None:
        """Read the journal and check OUT against it; or begin both."""
        events = self._read_journal() if existed else []
        if not events:
            if existed:
                raise self._foreign
            self._files.truncate(self._journal, 0)
            self._out = self._files.open_or_create(self.path)
            self._note(head.event())
            self._files.sync(self._journal)  # without its head nothing could be continued
            self._files.sync_folder(self.path.parent)
            return
        if (other := head.difference(events[0].event)) is not None:
            raise UsageError(f"{self.path} belongs to {other}; {self._advice}")
        self._out = self._files.open(self.path)
        kept = events[0]
        for event, line in self._valid_lines(events[1:]):
            self._lines.append(line)
            kept = event
        self._cut_tail()
        self._journal_end, self._journal_crc = kept.end, kept.crc
        self._files.truncate(self._journal, kept.end)
        self._note(filelock.this_process())

    def _read_journal(self) -> list[jsonl.Line]:
        """The journal's lines. Raises UsageError if it is damaged, or of another version."""
        data = read_all(self._files, self._journal, _MAX_JOURNAL)
        events = [*jsonl.read_valid(data)]
        tail = data[events[-1].end if events else 0 :]
        if b"\n" in tail and not _is_zeros(tail):  # more than one line that was cut off
            raise UsageError(
                f"{self.journal} is damaged after byte {len(data) - len(tail)}; {self._advice}"
            )
        if events and events[0].event.get("version") != VERSION:
            raise UsageError(
                f"{self.journal} was written by another version of edgesppo; {self._advice}"
            )
        return events

    def _valid_lines(self, events: list[jsonl.Line]) -> list[tuple[jsonl.Line, _Line]]:
        """The lines of OUT, each with its line of the journal, up to the first that is damaged.

        Raises UsageError if lines after that are intact: then OUT was changed.
        """
        found: list[tuple[jsonl.Line, _Line]] = []
        start, broken = 0, None
        for entry in events:
            line = entry.event
            if "row" not in line:  # a process that went on with the batch
                continue
            place = self._place(line, start)
            start = place.end
            if zlib.crc32(self._read(place)) != place.crc:
                broken = broken or place
            elif broken is not None:
                raise UsageError(
                    f"{self.path} was changed since it was written: the line of row "
                    f"{broken.key[0]} at byte {broken.start}; put it back, or {self._advice}"
                )
            else:
                found.append((entry, place))
        return found

    def _place(self, line: dict[str, Any], start: int) -> _Line:
        """The place of a line in OUT, by its line in the journal."""
        try:
            (row, answer), end, crc = line["row"], line["end"], line["crc"]
            if any(type(n) is not int for n in (row, answer, end, crc)) or end < start:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{self.journal} is damaged; {self._advice}") from None
        return _Line((row, answer), start, end, crc)

    def _read(self, line: _Line) -> bytes:
        assert self._out is not None, "the file is open"
        data, length = b"", line.end - line.start
        while len(data) < length:
            part = self._files.read(self._out, length - len(data), line.start + len(data))
            if not part:
                break
            data += part
        return data

    def _cut_tail(self) -> None:
        """Cut off what follows the last line that is done, if it is ours."""
        assert self._out is not None, "the file is open"
        tail = b""
        while part := self._files.read(self._out, 1 << 20, self._end + len(tail)):
            tail += part
        for line in tail.splitlines():
            ours = any(line.startswith(b) or b.startswith(line) for b in _BEGINNINGS)
            if not ours and not _is_zeros(line):
                raise UsageError(
                    f"{self.path} has text after byte {self._end} that is not of this batch; move "
                    f"that away, or {self._advice}"
                )
        self._files.truncate(self._out, self._end)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def check_place(path: Path) -> None:
    """Raise UsageError or OutputError for a path where no output can be."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file; a batch can be continued only from one")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist; create it first")


def _is_zeros(data: bytes) -> bool:
    """Whether these are only zero bytes, as a power cut leaves at the end of a file."""
    return not data.strip(b"\0")
