"""The input history: a file of what the user typed, shared by all chats."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from edgesppo.system.paths import data_dir

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 1_000_000


class _BestEffortHistory(FileHistory):
    """A history file that ignores write errors: a full disk must not end the chat."""

    def store_string(self, string: str) -> None:
        """Append an entry."""
        with suppress(OSError, UnicodeError):
            super().store_string(string)


def history() -> History:
    """The history file, readable by its owner only; in memory if the file cannot be opened."""
    path = data_dir() / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if not path.is_file():  # a pipe would be waited for
            return InMemoryHistory()
        if os.name != "nt":
            path.chmod(0o600)
        if path.stat().st_size > _MOST_BYTES:
            _shorten(path)
    except OSError:
        return InMemoryHistory()
    return _BestEffortHistory(str(path))


def _shorten(path: Path) -> None:
    """Keep the end of the file. Every entry begins with an empty line."""
    with path.open("rb") as old:
        old.seek(-(_MOST_BYTES // 2), os.SEEK_END)
        data = old.read(_MOST_BYTES)
    at = data.find(b"\n\n")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            file.write(data[at + 1 :] if at >= 0 else b"")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
