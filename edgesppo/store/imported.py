"""Whether an imported GGUF file, which stays where its owner has it, is still the one imported.

Its size and time are remembered with its hash; where they differ from the file's, it is hashed
once, and that is said. So replacing a file by another of the same size is noticed, and copying or
touching it costs one reading of it.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from edgesppo.errors import ModelNotFound, ModelUnreadable
from edgesppo.lockfile.entries import GGUF
from edgesppo.store import layout, user_state
from edgesppo.system import notices
from edgesppo.system.fs import hash_file
from edgesppo.system.shell import shell_word
from edgesppo.system.units import size

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel


def remember(path: Path, sha256: str, status: os.stat_result) -> None:
    """Remember that a file had this hash while it had this status."""
    user_state.set_file_mark(path, _mark(sha256, status))


def check(entry: PinnedModel) -> None:
    """Raise ModelNotFound if the GGUF file of an import has become another one of the same size."""
    if not _is_whole_file(entry):
        return
    path, pinned = layout.model_file(entry), entry.files[0].digest
    hasher = hashlib.sha256()
    try:
        status = path.stat()
        if user_state.file_mark(path) == _mark(pinned, status):
            return
        notices.notify(
            f"{path}: reading all of it ({size(status.st_size)}) to see whether it is still the"
            f" file that was imported as {entry.name}",
            at_once=True,
        )
        hash_file(path, hasher)
    except OSError as error:
        raise ModelUnreadable(f"{path}: cannot be read: {error.strerror or error}") from None
    if hasher.hexdigest() != pinned:
        raise ModelNotFound(
            f"{path}, imported as {entry.name}, is another file of the same size now; import it "
            f"again: edgesppo import {shell_word(str(path))} --name {entry.name}"
        )
    remember(path, pinned, status)


def may_have_changed(entry: PinnedModel) -> bool:
    """Whether the file of an import has another time than is remembered of it."""
    if not _is_whole_file(entry):
        return False
    path = layout.model_file(entry)
    mark = user_state.file_mark(path)
    with suppress(OSError):
        return mark not in (None, _mark(entry.files[0].digest, path.stat()))
    return True


def _is_whole_file(entry: PinnedModel) -> bool:
    return entry.location is not None and entry.kind == GGUF and layout.is_present(entry)


def _mark(sha256: str, status: os.stat_result) -> str:
    """Without the time of the last change of mode, name or owner, which change no content."""
    return f"{sha256} {status.st_size} {status.st_mtime_ns}"
