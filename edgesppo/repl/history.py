"""Owns what the person typed before, in this chat and in earlier ones: a file of their own."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from edgesppo.system.paths import data_dir

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 1_000_000


class _Kept(FileHistory):
    """A full disk costs a line of history, and no chat."""

    def store_string(self, string: str) -> None:
        """Append what was typed."""
        with suppress(OSError, UnicodeError):
            super().store_string(string)


def history() -> History:
    """The file's, readable by its owner only; of this chat alone where there can be no file."""
    path = data_dir() / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if os.name != "nt":
            path.chmod(0o600)
        if path.stat().st_size > _MOST_BYTES:
            _shorten(path)
    except OSError:
        return InMemoryHistory()
    return _Kept(str(path))


def _shorten(path: Path) -> None:
    """Let go of the older half; entries begin with an empty line."""
    data = path.read_bytes()
    at = data.find(b"\n\n", len(data) // 2)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data[at + 1 :] if at >= 0 else b"")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
