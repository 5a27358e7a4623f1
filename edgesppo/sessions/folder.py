"""The folder of saved chats: list, open, rename and delete them by name.

sessions = Sessions()
with sessions.open("rome") as session: ...
"""

from __future__ import annotations

import os
import stat
import time
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import BadChat, ChatInUse, ChatNotFound, UsageError
from edgesppo.sessions.file import SUFFIX, is_torn, parse, read, state_path
from edgesppo.sessions.session import Session
from edgesppo.system.fs import FileSystem, cannot_write
from edgesppo.system.paths import data_dir, portable_name_fault
from edgesppo.system.sanitize import one_line
from edgesppo.system.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_NAME = 64
# A file name has at most 255 bytes, and a chat's files have longer names than the chat.
_MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class Entry:
    """What is known of a saved chat without opening it.

    Attributes:
        name: The chat's name.
        model: The name of the model that answered last.
        n_turns: The number of turns that can be read.
        last_used: When the chat was written or left last, in seconds since 1970.
        n_bytes: The size of the chat's file.
        n_state_bytes: The size of its KV state; 0 if there is none.
        problem: What is wrong with the file, or None. Opening the chat repairs what can be.
        is_asked: Whether a question was sent after the turns that has no answer yet.
    """

    name: str
    model: str
    n_turns: int
    last_used: float
    n_bytes: int
    n_state_bytes: int
    problem: str | None = None
    is_asked: bool = False


class Sessions:
    """The saved chats in a folder, by default the user's own."""

    def __init__(self, folder: Path | None = None, files: FileSystem | None = None) -> None:
        self.folder = data_dir() / "sessions" if folder is None else folder
        self._files = files or FileSystem()

    def open(self, name: str) -> Session:
        """Open the chat of this name, or begin a new one.

        Raises what `Session` raises, and UsageError for an invalid name.
        """
        return Session(self._path(name, make=True), self._files)

    def resume(self, name: str) -> Session:
        """Open the chat of this name. Raises ChatNotFound if there is none."""
        self.existing(name)
        return self.open(name)

    def latest(self) -> Session:
        """Open the chat that was used last, skipping chats that cannot be read.

        The session's notices name the skipped ones. Raises ChatNotFound if there is no chat.
        """
        skipped: list[str] = []
        for entry in self.entries():
            try:
                session = self.open(entry.name)
            except BadChat as error:
                skipped.append(f"not resumed: {error}")
                continue
            if session.transcript is not None:
                session.notices[:0] = skipped
                return session
            skipped += session.notices
            session.close()
        why = "".join(f" ({text})" for text in skipped)
        raise ChatNotFound(f"there is no saved chat to resume{why}; begin one: edgesppo chat")

    def unnamed(self) -> Session:
        """Begin a chat that is named after today's date: 2026-11-22-1, 2026-11-22-2, ..."""
        day = time.strftime("%Y-%m-%d")
        n = 0
        while True:
            n += 1
            path = self._path(f"{day}-{n}", make=True)
            if os.path.lexists(path):
                continue
            with suppress(ChatInUse):
                session = Session(path, self._files)
                if session.transcript is None:
                    return session
                session.close()  # another process was faster

    def entries(self) -> list[Entry]:
        """The saved chats, the latest first. Opens and repairs none of them."""
        entries: list[Entry] = []
        for found in self._found():
            with suppress(OSError):  # removed by another process meanwhile
                entries.append(_entry(*found))
        return sorted(entries, key=lambda entry: entry.last_used, reverse=True)

    def rename(self, old: str, new: str) -> None:
        """Rename a chat and its KV state.

        Raises ChatNotFound, ChatInUse, and UsageError if the new name is taken or invalid.
        """
        path = self._path(new)
        with self.resume(old) as session:
            session.rename(path)

    def delete(self, name: str) -> None:
        """Remove a chat and its KV state. Raises ChatNotFound, ChatInUse, OutputError."""
        with self.resume(name) as session:
            session.delete()

    def existing(self, name: str) -> Path:
        """The file of an existing chat. Raises ChatNotFound, and UsageError for an invalid name."""
        path = self._path(name)
        if not os.path.lexists(path):
            near = self.did_you_mean(name)
            raise ChatNotFound(f"there is no saved chat {name!r}{near} in {self.folder}")
        return path

    def did_you_mean(self, name: str) -> str:
        """The text " (did you mean ...?)" with the most similar name of a saved chat, or empty."""
        return did_you_mean(name, [one_line(other) for other, _, _ in self._found()])

    def path(self, name: str) -> Path:
        """The file of the chat of this name. Raises UsageError for an invalid name."""
        return self.folder / (checked_name(name) + SUFFIX)

    def _path(self, name: str, *, make: bool = False) -> Path:
        path = self.path(name)
        if make:
            try:
                self._files.make_folder(self.folder)
                if os.name != "nt" and stat.S_IMODE(self.folder.stat().st_mode) & 0o077:
                    self.folder.chmod(0o700)
            except OSError as error:
                raise cannot_write(self.folder, error) from None
        return path

    def last_used(self) -> list[tuple[str, float]]:
        """The names of the saved chats and when they were written last; reads none of them.

        The latest is the first.
        """
        found = [(name, status.st_mtime) for name, _, status in self._found()]
        return sorted(found, key=lambda chat: chat[1], reverse=True)

    def _found(self) -> Iterator[tuple[str, Path, os.stat_result]]:
        """The name, file and status of each saved chat."""
        try:
            paths = list(self.folder.iterdir())
        except OSError:
            return
        for path in paths:
            with suppress(OSError, UsageError):
                if path.name.endswith(SUFFIX):
                    name = checked_name(path.name.removesuffix(SUFFIX))
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode) and status.st_size:
                        yield name, path, status


def _entry(name: str, path: Path, status: os.stat_result) -> Entry:
    model, turns, problem, is_asked = "", 0, None, False
    try:
        data = read(path)
        transcript, (end, _) = parse(data)
        if transcript is None:
            problem = "not a saved chat, or damaged from its first line on"
        else:
            model, turns = transcript.by.name, len(transcript.turns)
            is_asked = transcript.asked is not None
            if end < len(data):
                kind = "a torn last line" if is_torn(data, end) else "damaged"
                problem = f"{kind} after turn {turns}"
    except BadChat as error:
        problem = str(error)
    except PermissionError as error:
        problem = f"cannot be read: {error.strerror or error}"
    state = 0
    with suppress(OSError):
        state = state_path(path).stat().st_size
    return Entry(name, model, turns, status.st_mtime, status.st_size, state, problem, is_asked)


def checked_name(name: str) -> str:
    """A chat's name in Unicode's NFC.

    Raises UsageError for a name that cannot be a file name on every system.
    """
    name = unicodedata.normalize("NFC", name)
    fault = _name_fault(name)
    if fault:
        raise UsageError(f"{name[:80]!r} cannot be the name of a chat: {fault}")
    return name


def _name_fault(name: str) -> str | None:
    """What is wrong with a chat's name; None if nothing is."""
    if not name or name != name.strip():
        return "it is empty, or begins or ends with a space"
    if len(name) > MAX_NAME or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        return f"it has more than {MAX_NAME} characters or {_MAX_NAME_BYTES} bytes"
    if name.startswith("."):
        return "it begins with a dot"
    fault = portable_name_fault(name)
    return f"it {fault}" if fault else None
