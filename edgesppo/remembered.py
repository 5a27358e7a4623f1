"""Owns what one run tells the next in a line: licences that were accepted, the model used last.

    DATA_HOME/remembered.json    {"accepted": {"gemma": "2026-01-31"}, "last": "sppo-iter3"}

What cannot be read counts as not remembered.
"""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgesppo.files import Files, cannot_write, write_whole
from edgesppo.home import data_home

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 1 << 20


def path() -> Path:
    """Where it is kept."""
    return data_home() / "remembered.json"


def last() -> str | None:
    """The MODEL that was used last: a name, or a whole path."""
    model = _read().get("last")
    return model if isinstance(model, str) else None


def use(model: str) -> None:
    """Remember the MODEL that is used; where that cannot be written, the next run does without."""
    if last() != model:
        with suppress(OSError):
            _write({**_read(), "last": model})


def accepted(licence: str) -> bool:
    """Whether the person has accepted this licence here before."""
    return licence in _accepted()


def accept(licence: str) -> None:
    """Remember that the person has accepted this licence. Raises OutputError."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    try:
        _write({**_read(), "accepted": {**_accepted(), licence: today}})
    except OSError as error:
        raise cannot_write(path(), error) from error


def _accepted() -> dict[str, Any]:
    found = _read().get("accepted")
    return found if isinstance(found, dict) else {}


def _read() -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError), path().open("rb") as file:
        found = json.loads(file.read(_MAX_BYTES))
        if isinstance(found, dict):
            return found
    return {}


def _write(values: dict[str, Any]) -> None:
    path().parent.mkdir(parents=True, exist_ok=True)
    write_whole(path(), json.dumps(values, indent=1).encode(), files=Files())
