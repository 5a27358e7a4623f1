"""Suggestions for a MODEL that was not found: names in the lock, and files and folders nearby."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.system.sanitize import one_line
from edgesppo.system.suggest import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.lockfile.entries import Lock

_SIMILAR = 0.6  # of the names of two files, from 0 to 1
_MOST = 2000  # entries of a folder that are looked at


def near_model(model: str, lock: Lock) -> str:
    """The text " (did you mean ...?)" for a mistyped name or path; empty if nothing is similar."""
    by_name = lock.did_you_mean(model)
    return by_name or near_file(Path(model))


def near_file(path: Path) -> str:
    """The same for a path: names the most similar GGUF file or folder in its folder."""
    with suppress(OSError, RuntimeError, ValueError):  # as for `locate.find`
        path = path.expanduser()
        near = nearest(path.name, list(_models_in(path.parent)), _SIMILAR)
        if near is not None:
            return f" (did you mean {one_line(str(path.with_name(near)))}?)"
    return ""


def _models_in(folder: Path) -> Iterator[str]:
    """The names of GGUF files and visible folders in a folder, without broken links."""
    with os.scandir(folder) as entries:
        for entry in itertools.islice(entries, _MOST):
            is_model = entry.name.lower().endswith(".gguf") and entry.is_file()
            if is_model or (entry.is_dir() and not entry.name.startswith(".")):
                yield entry.name
