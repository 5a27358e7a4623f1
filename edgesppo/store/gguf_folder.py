"""Find the GGUF file that a folder holds, as LM Studio's and the hub cache's folders do."""

from __future__ import annotations

import itertools
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.gguf import reader
from edgesppo.lockfile.entries import name_fault
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from pathlib import Path

_MOST = 2000  # entries of a folder that are looked at
_LISTED = 8  # files in a message
_MAX_REF = 100  # bytes of the file with a branch's commit
_HEAD = 1 << 16  # bytes: the keys that say what a file is for come first
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf", re.IGNORECASE)
# The values of general.type of files that go with a model's.
_BESIDE = ("adapter", "imatrix", "mmproj")


def model_in(folder: Path) -> Path:
    """The model that a folder stands for: its only GGUF file, or else a checkpoint's folder.

    A model's folder in the hub's cache stands for its snapshot. Raises UsageError for several.
    """
    snapshot = _snapshot(folder) if "snapshots" in _names(folder) else None
    if snapshot is None:
        return _gguf_in(folder) or folder
    is_checkpoint = (snapshot / "config.json").is_file()
    return _gguf_in(snapshot) or (snapshot if is_checkpoint else folder)


def _gguf_in(folder: Path) -> Path | None:
    """The only model among a folder's GGUF files; None for a checkpoint, and where there is none.

    Raises UsageError for several.
    """
    names = _names(folder)
    if "config.json" in names and any(name.endswith(".safetensors") for name in names):
        return None
    found = [folder / name for name in sorted(names) if is_gguf_name(name)]
    found = [path for path in found if path.is_file() and not _is_beside(path)]
    if len(found) < 2:
        return found[0] if found else None
    part = _PART.fullmatch(found[0].name)
    if part is not None and len(found) == int(part[2]):
        raise UsageError(
            f"{folder} holds a model split into {len(found)} parts; merge them with llama.cpp's"
            f" llama-gguf-split --merge {found[0]} {folder / part[1]}.gguf"
        )
    listed = ", ".join(one_line(path.name) for path in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    raise UsageError(
        f"{folder} holds no checkpoint (config.json with safetensors), but {len(found)} GGUF files;"
        f" name one of them: {listed}{more}"
    )


def is_gguf_name(name: str) -> bool:
    """Whether a file of this name is to be taken for a complete GGUF file."""
    return name.lower().endswith(".gguf") and not name.startswith(".")


def head_keys(path: Path) -> dict[str, object]:
    """The keys at the beginning of a GGUF file; empty for another file, or one not readable."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return reader.peek(file.read(_HEAD), path.stat().st_size)
    return {}


def _is_beside(path: Path) -> bool:
    return head_keys(path).get("general.type") in _BESIDE


def _names(folder: Path) -> list[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [entry.name for entry in itertools.islice(entries, _MOST)]
    return []


def _snapshot(folder: Path) -> Path | None:
    """The snapshot of the main branch in a model's folder of the hub's cache, else the only one."""
    snapshots = folder / "snapshots"
    main, revision = folder / "refs" / "main", ""
    with suppress(OSError, UnicodeDecodeError):
        if main.is_file() and main.stat().st_size <= _MAX_REF:
            revision = main.read_text(encoding="ascii").strip()
        if revision and name_fault(revision) is None and (snapshots / revision).is_dir():
            return snapshots / revision
    found = [snapshots / name for name in _names(snapshots) if (snapshots / name).is_dir()]
    return found[0] if len(found) == 1 else None
