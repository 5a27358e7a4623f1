"""Owns one saved chat on disk: an append-only file, held by one process at a time.

    NAME.jsonl              its events, one checksummed line each (see lines.py, transcript.py)
    NAME.jsonl.kv           its KV state (see snapshot.py)
    .NAME.jsonl.lock        who has it open
    NAME.jsonl.damaged-N    what was found damaged, as it was found

All are readable by their owner only. Knows nothing of the folder, of models or of terminals.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgesppo.errors import Closed, OutputError, UsageError
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.file import MODE, SUFFIX, is_torn, lock, read, state_path, understand
from edgesppo.sessions.transcript import Transcript, changes
from edgesppo.system import jsonl
from edgesppo.system.fs import FileSystem, cannot_write, write_all

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.sessions.transcript import Conversation


class Session:
    """A saved chat that this process holds; a context manager, `close()` lets go of it.

    The file need not be there: it comes with the first turn, so that an empty chat leaves none.
    `transcript` is what is recorded (None: nothing yet). `notices` says, in one line each, what
    had to be mended on opening, and which settings made no sense and are left out.
    Raises ChatInUse, naming the process that holds it; BadChat where a newer version wrote it, or
    where it is no regular file; OutputError where the disk fails.
    """

    def __init__(self, path: Path, files: FileSystem | None = None) -> None:
        self.path = path
        self.notices: list[str] = []
        self.transcript: Transcript | None = None
        self.files = files or FileSystem()
        self.closed = False
        self._begun = False  # the file, by us
        self._at = (0, 0)  # where what is recorded ends, and its checksum: set at one stroke
        self._lock = lock(path, self.files)
        try:
            kv_snapshot.sweep(state_path(path), self.files)
            self._load()
        except OSError as error:
            self.close()
            raise OutputError(f"{path}: cannot be opened: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """What the person calls it."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def state_path(self) -> Path:
        """Where its KV state is."""
        return state_path(self.path)

    def record(self, now: Conversation) -> None:
        """Append what changed since the last time; when this returns, it is on the disk.

        New turns, a new answer in place of the last, turns taken back, other settings, another
        model. After a failure (OutputError) the next call records what this one could not.
        """
        if self.closed:
            raise Closed(f"the chat {self.name!r} was closed; open it again")
        if self.transcript is not None and not os.path.lexists(self.path):
            self._forget()  # somebody removed the file: it is written anew, whole
        if self.transcript is None and not now.messages:
            return
        events = changes(self.transcript, now)
        if not events:
            return
        self._append(events)
        for event in events:
            if self.transcript is None:
                self.transcript = Transcript(event)
            else:
                self.transcript.apply(event)

    def rename(self, path: Path) -> None:
        """Give it another name, its state with it. Raises UsageError where there is one."""
        if path == self.path:
            return
        held = lock(path, self.files)
        try:
            if os.path.lexists(path):
                raise UsageError(f"there is a chat {path.name.removesuffix(SUFFIX)!r} already")
            with suppress(FileNotFoundError):  # nothing is recorded yet
                self.files.replace(self.path, path)
                self.files.sync_folder(path.parent)
            with suppress(OSError):
                self.files.replace(self.state_path, state_path(path))
        except OSError as error:
            held.release()
            raise cannot_write(path, error) from None
        except BaseException:
            held.release()
            raise
        self._lock.release()
        self.path, self._lock = path, held

    def delete(self) -> None:
        """Remove it and its state; damaged copies stay. Raises OutputError."""
        self.delete_state()
        try:
            self.files.unlink(self.path)
            self.files.sync_folder(self.path.parent)
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be deleted: {error.strerror or error}"
            ) from None
        self._forget()

    def delete_state(self) -> None:
        """Remove its KV state, where that can be done: what is left of it serves nobody."""
        with suppress(OSError):
            self.files.unlink(self.state_path)

    def close(self) -> None:
        """Let go of it; harmless when repeated."""
        if self._begun and self._at == (0, 0):  # it may hold a line that nobody waited for
            with suppress(OSError):
                if understand(read(self.path, self.files))[0] is None:
                    self.files.unlink(self.path)
        self._begun, self.closed = False, True
        self._lock.release()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        self.transcript = None
        self._at = (0, 0)

    def _load(self) -> None:
        data = read(self.path, self.files)
        self.transcript, self._at = understand(data)
        end = self._at[0]
        if self.transcript is None:
            if data:
                self._set_aside()
        elif data[end - 1 : end] != b"\n":
            self._write(self.files.open(self.path), b"\n", end - 1)
        elif end < len(data):
            self._mend(data, len(self.transcript.turns))
        for complaint in self.transcript.drop_senseless() if self.transcript else ():
            self.notices.append(f"the chat {self.name!r} goes on without a setting: {complaint}")

    def _mend(self, data: bytes, turns: int) -> None:
        """Cut off what is not sound; but for a torn line, keep the file as it was found."""
        end, _ = self._at
        if is_torn(data, end):
            text = f"had a torn last line, as a crash leaves it; it goes on after turn {turns}"
        else:
            copy = self._free_name()
            self._write(self.files.create(copy, MODE), data, 0)
            self.files.sync_folder(copy.parent)
            text = (
                f"is damaged after turn {turns} and goes on there; as found, it is kept as {copy}"
            )
        self._write(self.files.open(self.path), b"", end)
        self.notices.append(f"the chat {self.name!r} {text}")

    def _set_aside(self) -> None:
        name = self._free_name()
        self.files.replace(self.path, name)
        self.files.sync_folder(name.parent)
        self.notices.append(
            f"the chat {self.name!r} is damaged from its first line on, or no chat of ours; its "
            f"file is now {name}, and a new chat begins"
        )

    def _free_name(self) -> Path:
        n = 1
        while os.path.lexists(name := self.path.with_name(f"{self.path.name}.damaged-{n}")):
            n += 1
        return name

    def _append(self, events: list[dict[str, Any]]) -> None:
        end, before = self._at
        data, crc = jsonl.encode(events, before)
        new = self.transcript is None
        self._begun |= new
        try:
            open_ = self.files.open_or_create if new else self.files.open
            self._write(open_(self.path, *((MODE,) if new else ())), data, end)
            if new:
                self.files.sync_folder(self.path.parent)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self._at = (end + len(data), crc)

    def _write(self, descriptor: int, data: bytes, at: int) -> None:
        """Let `data` be what follows `at`, and wait until it is on the disk."""
        try:
            self.files.truncate(descriptor, at)  # what an earlier failure left
            write_all(self.files, descriptor, data, at)
            self.files.sync(descriptor)
        finally:
            self.files.close(descriptor)
