"""Find the lock's entry that a model file belongs to.

It is found by the name that was asked for, by the source that the file names, or by the hashes of
the weights that it was made from. A file's own name is no evidence, and is not looked at.
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
    """The entry of the model that `model` names, else of the one that the file was made from.

    `card` is what `metadata.describe` returns. None if there is none in a lock.
    """
    entry = locate.entry_of(model)
    if entry is not None and entry.location is None:
        return entry
    lock, repository = layers.read(), source_repository(card)
    if repository is not None:
        return lock.of_repository(repository)
    weights = {line.rpartition(" ")[2] for line in card["inputs"]["weights"]}
    known = (entry for entry in lock.models.values() if entry.location is None)
    return next((e for e in known if weights and weights <= {f.sha256 for f in e.files}), None)


def source_repository(card: dict[str, Any]) -> str | None:
    """OWNER/NAME of the repository that a file was converted from, if it names one of the hub."""
    address = card["lineage"]["source"] or ""
    repository = address.removeprefix(HUB).partition("/tree/")[0].strip("/")
    return repository if address.startswith(HUB) and REPOSITORY.fullmatch(repository) else None
