"""Whether an imported GGUF file, which stays where its owner has it, is still the one imported.

Its size and time are remembered with its hash; where they differ from the file's, it is hashed
once. So replacing a file by another of the same size is noticed, and copying or touching it costs
one reading of it.
"""

from __future__ import annotations

import hashlib
import shlex
from typing import TYPE_CHECKING

from edgesppo.errors import ModelNotFound
from edgesppo.lockfile.entries import GGUF
from edgesppo.store import layout, user_state
from edgesppo.system.fs import hash_file

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel


def remember(path: Path, sha256: str, status: os.stat_result) -> None:
    """Remember that a file had this hash while it had this status."""
    user_state.set_file_mark(path, _mark(sha256, status))


def check(entry: PinnedModel) -> None:
    """Raise ModelNotFound if the GGUF file of an import has become another one of the same size."""
    if entry.location is None or entry.kind != GGUF or not layout.is_present(entry):
        return
    path, pinned = layout.model_file(entry), entry.files[0].digest
    status = path.stat()
    if user_state.file_mark(path) == _mark(pinned, status):
        return
    hasher = hashlib.sha256()
    hash_file(path, hasher)
    if hasher.hexdigest() != pinned:
        raise ModelNotFound(
            f"{path}, imported as {entry.name}, is another file of the same size now; import it "
            f"again: edgesppo import {shlex.quote(str(path))} --name {entry.name}"
        )
    remember(path, pinned, status)


def _mark(sha256: str, status: os.stat_result) -> str:
    return f"{sha256} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
