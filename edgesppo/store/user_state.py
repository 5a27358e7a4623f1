"""What is remembered from one run to the next: accepted licences, and the model used last.

Also which imported files had which hash.

    DATA_HOME/remembered.json    {"accepted": {"OWNER/NAME": {"terms": HASH, "on": "2026-01-31"}},
                                  "last": "sppo-iter3",
                                  "files": {"/PATH/a.gguf": "HASH SIZE MTIME_NS"}}

A file that cannot be read counts as empty.
"""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgesppo.errors import OutputError
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem, atomic_write, cannot_write, read_regular
from edgesppo.system.paths import data_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAX_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 30.0  # for another process to write it


def path() -> Path:
    """The path of the file."""
    return data_dir() / "remembered.json"


def last() -> str | None:
    """The MODEL that was used last: a name or an absolute path; None if unknown."""
    model = _read().get("last")
    return model if isinstance(model, str) else None


def set_last(model: str) -> None:
    """Remember the MODEL used last; does nothing if the file cannot be written."""
    if last() != model:
        with suppress(OSError, OutputError):
            _change(lambda values: {**values, "last": model})


def accepted(repository: str, terms: str) -> bool:
    """Whether the user has accepted exactly these terms of this repository."""
    found = _accepted(_read()).get(repository)
    return isinstance(found, dict) and found.get("terms") == terms


def accept(repository: str, terms: str) -> None:
    """Record that the user has accepted these terms of the repository. Raises OutputError."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    try:
        new = {repository: {"terms": terms, "on": today}}
        _change(lambda values: {**values, "accepted": {**_accepted(values), **new}})
    except OSError as error:
        raise cannot_write(path(), error) from error


def file_mark(path: Path) -> str | None:
    """What `set_file_mark` remembered of a file; None if nothing is."""
    found = _files(_read()).get(str(path))
    return found if isinstance(found, str) else None


def set_file_mark(path: Path, mark: str) -> None:
    """Remember a mark of a file; does nothing if it cannot be written."""
    with suppress(OSError, OutputError):
        _change(lambda values: {**values, "files": {**_files(values), str(path): mark}})


def _files(values: dict[str, Any]) -> dict[str, Any]:
    found = values.get("files")
    return found if isinstance(found, dict) else {}


def _accepted(values: dict[str, Any]) -> dict[str, Any]:
    found = values.get("accepted")
    return found if isinstance(found, dict) else {}


def _read() -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(read_regular(path(), _MAX_BYTES))
        if isinstance(found, dict):
            return found
    return {}


def _change(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite the file with `change` applied to its values, under a lock."""
    files = FileSystem()
    path().parent.mkdir(parents=True, exist_ok=True)
    with filelock.hold(path(), files, timeout=_LOCK_TIMEOUT_S):
        atomic_write(path(), json.dumps(change(_read()), indent=1).encode(), files=files)
