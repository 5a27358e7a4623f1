"""Walk the folders of another program, bounded and without raising."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 20_000  # files and folders that are looked at for each program
_MAX_JSON = 1 << 20


@dataclass(frozen=True)
class LocalModel:
    """A model of another program: what that calls it, and its GGUF file or checkpoint folder.

    `note` says what of it stays behind; `fault`, why it is not to be imported.
    """

    program: str
    name: str
    path: Path
    note: str | None = None
    fault: str | None = None


def home() -> Path:
    """The user's home folder; the root where there is none."""
    with suppress(RuntimeError):
        return Path.home()
    return Path(os.sep)


def from_environment(variable: str) -> Path | None:
    """The folder that an environment variable names; None if it is not set."""
    text = os.environ.get(variable)
    if not text:
        return None
    with suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def files_below(folder: Path, depth: int) -> Iterator[Path]:
    """The regular files up to `depth` folders below one, also through links; sorted by folder."""
    left, seen = _MOST, set[str]()
    waiting = [(folder, depth)]
    while waiting and left > 0:
        here, below = waiting.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        folders = []
        for entry in _entries(here):
            left -= 1
            with suppress(OSError):
                if entry.is_file():
                    yield Path(entry.path)
                elif below and entry.is_dir():
                    folders.append((Path(entry.path), below - 1))
        waiting += reversed(folders)


def unreadable(folder: Path) -> str | None:
    """Why a folder that exists cannot be looked into; None if it can, or does not exist."""
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None


def read_json(path: Path) -> Any:
    """The contents of a small JSON file; None where it is not one."""
    with suppress(OSError, ValueError, RecursionError):
        if path.is_file() and path.stat().st_size <= _MAX_JSON:
            return json.loads(path.read_bytes())
    return None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
    return []
