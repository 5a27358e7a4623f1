"""Owns `import`: a GGUF file or checkpoint folder of the user's own gets a name in their lock.

By reference: the file stays where it is, nothing is copied or linked, and its hashes say whether
it is still the same. This file may import edgesppo_convert, late.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadCheckpoint, BadModelFile, ModelNotFound, UsageError
from edgesppo.gguf import gemma2, metadata
from edgesppo.hub.model_card import parse_card
from edgesppo.lockfile import layers
from edgesppo.lockfile.checks import check_location
from edgesppo.lockfile.entries import (
    CHECKPOINT,
    GGUF,
    PinnedFile,
    PinnedModel,
    check_model_name,
    is_link,
    name_fault,
)
from edgesppo.store.converted import is_read
from edgesppo.system.fs import blocks
from edgesppo.system.paths import expand_user

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    # Hears how many bytes were hashed, and of how many.
    Hashed = Callable[[int, int], None]

_UNKNOWN = "unknown"
_MAX_NAME = 64


def register(path: Path, name: str | None = None, hashed: Hashed | None = None) -> PinnedModel:
    """Check, hash and record a model of the user's; the entry that it got.

    Raises ModelNotFound, BadModelFile, BadCheckpoint, UsageError and OutputError.
    """
    place = _whole(expand_user("the path", str(path)))
    try:
        str(place).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path}: a lock is UTF-8, this path is not; rename it") from None
    folder, kind = (place, CHECKPOINT) if place.is_dir() else (place.parent, GGUF)
    found = _checkpoint(place) if place.is_dir() else _gguf(place)
    check_location(str(folder), str(path))
    chosen = name or _name(place)
    check_model_name(chosen)
    _check_free(chosen, folder, place)
    names = [place.name] if kind == GGUF else _names(folder)
    for file in names:
        if fault := name_fault(file):
            raise UsageError(f"{folder / file}: the name {file!r} {fault}; rename the file")
    files = _hashes(folder, names, hashed)
    entry = PinnedModel(name=chosen, kind=kind, location=str(folder), files=files, **found)
    layers.update_entry(chosen, lambda _: entry)
    return entry


def _whole(path: Path) -> Path:
    """From the root on and without "..", by the name that it was given."""
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def _checkpoint(folder: Path) -> dict[str, Any]:
    """What a sound checkpoint's card says."""
    from edgesppo_convert.source.checkpoint import Checkpoint

    with Checkpoint(folder) as checkpoint:
        card = parse_card((checkpoint.small("README.md") or b"").decode("utf-8", "replace"))
    licence = card.license or card.license_in_text or _UNKNOWN
    text = card.license_in_text if card.license else None
    return {
        "description": f"{folder.name}, a checkpoint of your own",
        "license": licence,
        "license_in_text": text,
        "license_link": _link(card.license_link),
    }


def _gguf(path: Path) -> dict[str, Any]:
    """What a sound file's own card says."""
    keys = gemma2.load_summary(path).keys
    title = metadata.text(keys, "general.name") or path.stem
    return {
        "description": f"{title}, a file of your own",
        "license": metadata.text(keys, "general.license") or _UNKNOWN,
        "license_in_text": metadata.text(keys, "edgesppo.license.in_text"),
        "license_link": _link(metadata.text(keys, "general.license.link")),
    }


def _name(path: Path) -> str:
    """A name made of the file's."""
    stem = path.name if path.is_dir() else path.stem
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:_MAX_NAME] or "mine"


def _check_free(name: str, folder: Path, place: Path) -> None:
    taken = layers.read(may_create=True).same_named(name)
    if taken is None or (taken.name, taken.location) == (name, str(folder)):
        return
    whose = taken.location or taken.repository or "what comes with edgesppo"
    raise UsageError(
        f"{taken.name} is the name of {whose}; choose another: edgesppo import {place} --name NAME"
    )


def _names(folder: Path) -> list[str]:
    found = [path.name for path in folder.iterdir() if is_read(path) or path.name == "README.md"]
    if not found:
        raise BadCheckpoint(f"{folder} has no files of a checkpoint")
    return sorted(found)


def _hashes(folder: Path, names: list[str], hashed: Hashed | None) -> tuple[PinnedFile, ...]:
    total = sum((folder / name).stat().st_size for name in names)
    done, found = 0, list[PinnedFile]()
    for name in names:
        digest, size = hashlib.sha256(), 0
        try:
            for data in blocks(folder / name):
                digest.update(data)
                size += len(data)
                if hashed is not None:
                    hashed(min(done + size, total), total)
        except FileNotFoundError:
            raise ModelNotFound(f"{folder / name}: no such file") from None
        except OSError as error:
            raise BadModelFile(f"{folder / name}: cannot be read: {error.strerror}") from None
        done += size
        found.append(PinnedFile(name, size, digest.hexdigest()))
    return tuple(found)


def _link(text: str | None) -> str | None:
    return text if text is not None and is_link(text) else None
