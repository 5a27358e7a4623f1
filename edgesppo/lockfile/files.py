"""The files of a lock's entry in a folder: their sizes and hashes, and where shipped ones lie."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo.lockfile.entries import PinnedFile, git_blob
from edgesppo.system.paths import PACKAGE

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel

_MAX_SMALL = 64 << 20  # bytes of a file that is hashed in memory


def shipped_folder(model: PinnedModel) -> Path:
    """The folder of a model that ships with this package."""
    assert model.shipped is not None
    return PACKAGE.parent / model.shipped


def describe_files(folder: Path, names: list[str]) -> tuple[PinnedFile, ...]:
    """The current sizes and hashes of files in a folder."""
    files = []
    for name in names:
        data = (folder / name).read_bytes()
        blob = git_blob(len(data))
        blob.update(data)
        sha256 = hashlib.sha256(data).hexdigest()
        files.append(PinnedFile(name, len(data), sha256, blob.hexdigest()))
    return tuple(files)


def with_sha256(model: PinnedModel, folder: Path) -> PinnedModel:
    """The entry with the sha256 of small files that are in `folder` and match their oid."""
    files = []
    for file in model.files:
        path = folder / file.path
        small = file.sha256 is None and file.size <= _MAX_SMALL
        if small and path.is_file() and path.stat().st_size == file.size:
            (present,) = describe_files(folder, [file.path])
            file = present if present.oid == file.oid else file
        files.append(file)
    return replace(model, files=tuple(files))
