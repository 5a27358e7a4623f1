"""Find the lock's entry that a model file belongs to: by the name it was asked for, or its source.

A file's own name is no evidence, and is not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import REPOSITORY
from edgesppo.store import locate

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel

HUB = "https://huggingface.co/"


def origin(model: str | Path, card: dict[str, Any]) -> PinnedModel | None:
    """The entry of the model that `model` names, else of the repository that the file names.

    `card` is what `metadata.describe` returns. None if neither is in a lock.
    """
    entry = locate.entry_of(model)
    if entry is not None and entry.repository is not None:
        return entry
    repository = source_repository(card)
    return None if repository is None else layers.read().of_repository(repository)


def source_repository(card: dict[str, Any]) -> str | None:
    """OWNER/NAME of the repository that a file was converted from, if it names one of the hub."""
    address = card["lineage"]["source"] or ""
    repository = address.removeprefix(HUB).strip("/")
    return repository if address.startswith(HUB) and REPOSITORY.fullmatch(repository) else None
