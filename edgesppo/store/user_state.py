"""Owns what one run tells the next in a line: licences that were accepted, the model used last.

    DATA_HOME/remembered.json    {"accepted": {"OWNER/NAME": {"terms": HASH, "on": "2026-01-31"}},
                                  "last": "sppo-iter3"}

What cannot be read counts as not remembered.
"""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgesppo.errors import OutputError
from edgesppo.lockfile import layers
from edgesppo.system.fs import FileSystem, atomic_write, cannot_write
from edgesppo.system.paths import data_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAX_BYTES = 1 << 20


def path() -> Path:
    """Where it is kept."""
    return data_dir() / "remembered.json"


def last() -> str | None:
    """The MODEL that was used last: a name, or a whole path."""
    model = _read().get("last")
    return model if isinstance(model, str) else None


def use(model: str) -> None:
    """Remember the MODEL that is used; where that cannot be written, the next run does without."""
    if last() != model:
        with suppress(OSError, OutputError):
            _change(lambda values: {**values, "last": model})


def accepted(repository: str, terms: str) -> bool:
    """Whether the person has accepted these very terms of this repository here before."""
    found = _accepted(_read()).get(repository)
    return isinstance(found, dict) and found.get("terms") == terms


def accept(repository: str, terms: str) -> None:
    """Remember that the person has accepted these terms. Raises OutputError."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    try:
        said = {repository: {"terms": terms, "on": today}}
        _change(lambda values: {**values, "accepted": {**_accepted(values), **said}})
    except OSError as error:
        raise cannot_write(path(), error) from error


def _accepted(values: dict[str, Any]) -> dict[str, Any]:
    found = values.get("accepted")
    return found if isinstance(found, dict) else {}


def _read() -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError), path().open("rb") as file:
        found = json.loads(file.read(_MAX_BYTES))
        if isinstance(found, dict):
            return found
    return {}


def _change(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write what `change` makes of what is remembered, while no other process does the same."""
    files = FileSystem()
    path().parent.mkdir(parents=True, exist_ok=True)
    with layers.hold(path(), files):
        atomic_write(path(), json.dumps(change(_read()), indent=1).encode(), files=files)
