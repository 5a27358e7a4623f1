"""One saved chat on disk: an append-only file that one process at a time has open.

    NAME.jsonl              its events, one line with a checksum each (see jsonl.py, transcript.py)
    NAME.jsonl.kv           its KV state (see kv_snapshot.py)
    .NAME.jsonl.lock        the process that has it open
    NAME.jsonl.damaged-N    a copy of the file as it was when damage was found

Only their owner can read them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadChat, Closed, OutputError, UsageError
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.file import MODE, SUFFIX, is_torn, lock, lock_path, parse, read, state_path
from edgesppo.sessions.transcript import Transcript, changes
from edgesppo.system import jsonl
from edgesppo.system.fs import FileSystem, cannot_write, is_same_file, write_all

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.sessions.transcript import Conversation


class Session:
    """A saved chat that this process has open. A context manager: leaving it closes the chat.

    The file is created with the first turn, so that an empty chat leaves none.

    Attributes:
        path: The chat's file.
        transcript: What is recorded; None if nothing is yet.
        notices: One line each for what was repaired on opening, and for invalid settings that are
            ignored.
        closed: Whether the session was closed.

    Raises:
        ChatInUse: Another process, which the error names, has the chat open.
        BadChat: A newer version wrote the file, it is not a regular file, or may not be opened.
        OutputError: The disk failed.
    """

    def __init__(self, path: Path, files: FileSystem | None = None) -> None:
        self.path = path
        self.notices: list[str] = []
        self.transcript: Transcript | None = None
        self.files = files or FileSystem()
        self.closed = False
        self._created = False  # whether this session created the file
        self._had_turns = False  # whether turns were written since then
        self._end = (0, 0)  # where the recorded lines end, and their checksum; set in one statement
        self._lock = lock(path, self.files)
        try:
            kv_snapshot.remove_unfinished(state_path(path), self.files)
            self._load()
        except OSError as error:
            self.close()
            kind = BadChat if isinstance(error, PermissionError) else OutputError
            raise kind(f"{path}: cannot be opened: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The chat's name."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def state_path(self) -> Path:
        """The file of its KV state."""
        return state_path(self.path)

    def record(self, now: Conversation) -> None:
        """Append what changed since the last call; when this returns, it is on disk.

        That is a question, new turns, a new last answer, removed turns, other settings or another
        model. Raises Closed, and OutputError if the disk fails; then the next call tries again.
        """
        if self.closed:
            raise Closed(f"the chat {self.name!r} was closed; open it again")
        if self.transcript is not None and not os.path.lexists(self.path):
            self._forget()  # the file was removed: everything is written again
        if self.transcript is None and not now.messages and now.asked is None:
            return
        events = changes(self.transcript, now)
        if not events:
            return
        self._append(events)
        self._had_turns |= bool(now.messages)
        for event in events:
            if self.transcript is None:
                self.transcript = Transcript(event)
            else:
                self.transcript.apply(event)

    def rename(self, path: Path) -> None:
        """Rename the chat's files to `path`. Raises UsageError if there is a chat of that name."""
        if str(path) == str(self.path):  # paths of Windows are equal in letters of any case
            return
        before, old_state = self._lock, self.state_path
        # A disk may not tell "Rome" from "rome": the name is then locked already, by us.
        is_same = is_same_file(lock_path(path), before.path)
        new = before if is_same else lock(path, self.files)
        try:
            if not is_same and os.path.lexists(path):
                raise UsageError(f"there is a chat {path.name.removesuffix(SUFFIX)!r} already")
            with suppress(FileNotFoundError):  # nothing is recorded yet
                self.files.replace(self.path, path)
            self.path, self._lock = path, new  # at once, as all that follows may fail
            with suppress(OSError):
                self.files.replace(old_state, self.state_path)
            self.files.sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from None
        finally:
            unused = before if self._lock is new else new
            if not is_same:
                unused.release()

    def delete(self) -> None:
        """Delete the chat and its KV state, but no damaged copies. Raises OutputError."""
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
        """Delete the KV state if possible; an error is ignored, as the state only saves time."""
        with suppress(OSError):
            self.files.unlink(self.state_path)

    def touch(self) -> None:
        """Make it the chat that was used last, even if nothing was written."""
        with suppress(OSError):
            os.utime(self.path)

    def close(self) -> None:
        """Unlock the chat; harmless when repeated."""
        if self._created and self._end == (0, 0):  # the first write failed, perhaps halfway
            with suppress(OSError):
                if parse(read(self.path, self.files))[0] is None:
                    self.files.unlink(self.path)
        elif self._created and self._is_empty():
            with suppress(OSError):
                self.files.unlink(self.path)
        self._created, self.closed = False, True
        self._lock.release()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_empty(self) -> bool:
        """Whether all that was ever written is a question that was withdrawn."""
        saved = self.transcript
        return saved is not None and saved.asked is None and not self._had_turns

    def _forget(self) -> None:
        """Treat the chat as not recorded yet."""
        self.transcript = None
        self._end = (0, 0)

    def _load(self) -> None:
        """Read the file, and repair it if it is damaged."""
        data = read(self.path, self.files)
        self.transcript, self._end = parse(data)
        end = self._end[0]
        if self.transcript is None:
            if data:
                self._set_aside()
        elif data[end - 1 : end] != b"\n":
            self._write(self.files.open(self.path), b"\n", end - 1)
        elif end < len(data):
            self._repair(data, len(self.transcript.turns))
        for complaint in self.transcript.drop_invalid_sampling() if self.transcript else ():
            self.notices.append(
                f"the chat {self.name!r} continues without an invalid setting: {complaint}"
            )

    def _repair(self, data: bytes, turns: int) -> None:
        """Cut off the damaged part; keep a copy of the file unless it is just a torn line."""
        end, _ = self._end
        if is_torn(data, end):
            text = f"had a torn last line, as a crash leaves it; it continues after turn {turns}"
        else:
            copy = self._free_name()
            self._write(self.files.create(copy, MODE), data, 0)
            self.files.sync_folder(copy.parent)
            text = (
                f"is damaged after turn {turns} and continues there; the damaged file was kept as "
                f"{copy}"
            )
        self._write(self.files.open(self.path), b"", end)
        self.notices.append(f"the chat {self.name!r} {text}")

    def _set_aside(self) -> None:
        """Rename a file of which nothing can be read."""
        name = self._free_name()
        self.files.replace(self.path, name)
        self.files.sync_folder(name.parent)
        self.notices.append(
            f"the chat {self.name!r} is damaged from its first line on, or was not saved by "
            f"edgesppo; its file was renamed to {name}, and a new chat begins"
        )

    def _free_name(self) -> Path:
        """The next free name for a damaged file."""
        n = 1
        while os.path.lexists(name := self.path.with_name(f"{self.path.name}.damaged-{n}")):
            n += 1
        return name

    def _append(self, events: list[dict[str, Any]]) -> None:
        """Append events to the file. Raises OutputError."""
        end, previous_crc = self._end
        data, crc = jsonl.encode(events, previous_crc)
        is_new = self.transcript is None
        self._created |= is_new
        try:
            open_ = self.files.open_or_create if is_new else self.files.open
            self._write(open_(self.path, *((MODE,) if is_new else ())), data, end)
            if is_new:
                self.files.sync_folder(self.path.parent)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self._end = (end + len(data), crc)

    def _write(self, descriptor: int, data: bytes, at: int) -> None:
        """Replace everything from byte `at` on with `data`, and wait until it is on disk."""
        try:
            self.files.truncate(descriptor, at)  # remove what a failed write left
            write_all(self.files, descriptor, data, at)
            self.files.sync(descriptor)
        finally:
            self.files.close(descriptor)
