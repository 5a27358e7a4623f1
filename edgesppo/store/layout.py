"""Owns where the files of a lock's models lie on this machine, and which of them are there.

    HOME/models/OWNER--NAME/REVISION/      a checkpoint, or a GGUF file, as the hub has it
        .NAME.part                         a file on its way
    HOME/models/NAME-RECIPE-COMMIT-PLATFORM.gguf
                                           what was made of a checkpoint here
    HOME/models/.COMMIT.busy               see busy.py

A file of the right size counts as there; its hash was right when it came, and `verify` looks
again. Opens no connection.
"""

from __future__ import annotations

import platform
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import OutputError
from edgesppo.hub.download import part_path
from edgesppo.lockfile import toml
from edgesppo.lockfile.entries import GGUF
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedBuild, PinnedFile, PinnedModel

_DIGITS = 12  # of a revision, in a file's name
_COMMIT = re.compile(r"(?<=-)[0-9a-f]{12}(?=-)")
RECIPE = "q4_k_m"  # what is made of a checkpoint where nobody says otherwise


def root() -> Path:
    """The folder of all that was pulled or made of it."""
    return cache_dir() / "models"


def platform_name() -> str:
    """What machines have in common that make the same bytes: "linux-x86_64"."""
    return f"{sys.platform}-{platform.machine().lower() or 'unknown'}"


def model_dir(entry: PinnedModel) -> Path:
    """Where the entry's own files belong; it must be pinned."""
    if entry.shipped is not None:
        return toml.shipped_folder(entry)
    if entry.location is not None:
        return Path(entry.location)
    assert entry.repository is not None
    assert entry.revision is not None
    return root() / entry.repository.replace("/", "--") / entry.revision


def build_path(entry: PinnedModel, recipe: str = RECIPE, made_on: str | None = None) -> Path:
    """Where a GGUF file made of the entry belongs, on this platform unless another is named."""
    assert entry.revision is not None
    made_on = made_on or platform_name()
    return root() / f"{entry.name}-{recipe}-{entry.revision[:_DIGITS]}-{made_on}.gguf"


def commit_lock_path(revision: str) -> Path:
    """The mark of who is at work on a commit; its first digits will do."""
    return root() / f".{revision[:_DIGITS]}.busy"


def commits(path: Path) -> list[str]:
    """The commits, or their first digits, that a path of ours may belong to."""
    if root() not in path.parents:
        return []
    parts = path.relative_to(root()).parts
    return [parts[1]] if len(parts) > 1 else _COMMIT.findall(parts[0])


def missing_files(entry: PinnedModel) -> list[PinnedFile]:
    """Those of the entry's files that are not there, whole."""
    if not entry.is_pinned:
        return []
    return [file for file in entry.files if size_of(model_dir(entry) / file.path) != file.size]


def is_there(entry: PinnedModel) -> bool:
    """Whether all files of the entry are."""
    return entry.is_pinned and not missing_files(entry)


def find_build(entry: PinnedModel, recipe: str | None = None) -> tuple[Path, PinnedBuild] | None:
    """A GGUF file that was made of the entry here, the usual recipe first."""
    if entry.revision is None or not entry.is_pinned:
        return None
    for made in sorted(entry.builds, key=lambda made: made.recipe != RECIPE):
        path = build_path(entry, made.recipe)
        fits = made.platform == platform_name() and recipe in (None, made.recipe)
        if fits and size_of(path) == made.size:
            return path, made
    return None


def model_file(entry: PinnedModel) -> Path:
    """What is loaded of an entry whose own files are there: its folder, or its GGUF file."""
    return model_dir(entry) / entry.files[0].path if entry.kind == GGUF else model_dir(entry)


def size_of(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    with suppress(OSError, ValueError):
        if path.is_file():
            return path.stat().st_size
    return None


def check_inside(path: Path) -> None:
    """Refuse to write where a symbolic link leads out of our folder."""
    top = root().resolve()
    real = path.parent.resolve()
    if real != top and top not in real.parents:
        raise OutputError(
            f"{path} is really in {real}, outside of {top}; remove that link, or set EDGESPPO_HOME"
        )
    if part_path(path).is_symlink():
        raise OutputError(
            f"{part_path(path)} is a symbolic link, not a download of ours; remove it"
        )
