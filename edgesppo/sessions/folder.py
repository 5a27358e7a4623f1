"""Owns the folder of saved chats: their names, which there are, and which was used last.

    sessions = Sessions()
    with sessions.open("rome") as session: ...

Knows nothing of models or of terminals.
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
from edgesppo.sessions.file import SUFFIX, is_torn, read, state_path, understand
from edgesppo.sessions.session import Session
from edgesppo.system.fs import FileSystem, cannot_write
from edgesppo.system.paths import data_dir, portable_name_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_NAME = 64
# A file's name has at most 255 bytes, and ours are longer than the chat's.
_MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class Entry:
    """One saved chat, as far as can be told without opening it.

    `model` is the name of the model that answered last, `last_used` seconds since 1970, `n_bytes`
    and `n_state_bytes` the sizes of the chat's file and of its KV state. `problem` says what is
    wrong with the file, if anything is; opening it mends what can be mended.
    """

    name: str
    model: str
    n_turns: int
    last_used: float
    n_bytes: int
    n_state_bytes: int
    problem: str | None = None


class Sessions:
    """The saved chats of a folder, by default that of this user."""

    def __init__(self, folder: Path | None = None, files: FileSystem | None = None) -> None:
        self.folder = data_dir() / "sessions" if folder is None else folder
        self._files = files or FileSystem()

    def open(self, name: str) -> Session:
        """Go on with the chat of this name, or begin it. Raises what Session does, UsageError."""
        return Session(self._path(name, make=True), self._files)

    def resume(self, name: str) -> Session:
        """Go on with the chat of this name. Raises ChatNotFound where there is none."""
        self.existing(name)
        return self.open(name)

    def latest(self) -> Session:
        """Go on with the chat that was used last, of those that can be read.

        Those that are passed over are among the session's notices. Raises ChatNotFound where
        there is none.
        """
        passed: list[str] = []
        for entry in self.entries():
            try:
                session = self.open(entry.name)
            except BadChat as error:
                passed.append(f"not resumed: {error}")
                continue
            if session.transcript is not None:
                session.notices[:0] = passed
                return session
            passed += session.notices
            session.close()
        why = "".join(f" ({text})" for text in passed)
        raise ChatNotFound(f"there is no saved chat to resume{why}; edgesppo chat begins one")

    def unnamed(self) -> Session:
        """Begin a chat that is called by its day: 2026-11-22-1, 2026-11-22-2, ..."""
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
                session.close()  # somebody was quicker

    def entries(self) -> list[Entry]:
        """The saved chats, the one used last first. Opens none and mends none."""
        return sorted(self._found(), key=lambda entry: entry.last_used, reverse=True)

    def rename(self, old: str, new: str) -> None:
        """Give a chat another name, its KV state with it.

        Raises ChatNotFound, ChatInUse, and UsageError where the new name is taken or is none.
        """
        path = self._path(new)
        with self.resume(old) as session:
            session.rename(path)

    def delete(self, name: str) -> None:
        """Remove a chat and its KV state. Raises ChatNotFound, ChatInUse, OutputError."""
        with self.resume(name) as session:
            session.delete()

    def existing(self, name: str) -> Path:
        """Where the chat of this name is. Raises ChatNotFound, UsageError for what is no name."""
        path = self._path(name)
        if not os.path.lexists(path):
            raise ChatNotFound(f"there is no saved chat {name!r} in {self.folder}")
        return path

    def path(self, name: str) -> Path:
        """Where the chat of this name is, or belongs. Raises UsageError for what is no name."""
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

    def _found(self) -> Iterator[Entry]:
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
                        yield _entry(name, path, status)


def _entry(name: str, path: Path, status: os.stat_result) -> Entry:
    model, turns, problem = "", 0, None
    try:
        data = read(path)
        transcript, (end, _) = understand(data)
        if transcript is None:
            problem = "no saved chat, or damaged from its first line on"
        else:
            model, turns = transcript.by.name, len(transcript.turns)
            if end < len(data):
                kind = "a torn last line" if is_torn(data, end) else "damaged"
                problem = f"{kind} after turn {turns}"
    except BadChat as error:
        problem = str(error)
    state = 0
    with suppress(OSError):
        state = state_path(path).stat().st_size
    return Entry(name, model, turns, status.st_mtime, status.st_size, state, problem)


def checked_name(name: str) -> str:
    """A chat's name as it is used, or UsageError: a name must be a file's name everywhere."""
    name = unicodedata.normalize("NFC", name)
    wrong = _wrong(name)
    if wrong:
        raise UsageError(f"{name[:80]!r} cannot be the name of a chat: {wrong}")
    return name


def _wrong(name: str) -> str | None:
    if not name or name != name.strip():
        return "it is empty, or begins or ends with a space"
    if len(name) > MAX_NAME or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        return f"it has more than {MAX_NAME} letters or {_MAX_NAME_BYTES} bytes"
    if name.startswith("."):
        return "it begins with a dot"
    fault = portable_name_fault(name)
    return f"it {fault}" if fault else None
