"""The folder layout of the model store, and which of an entry's files are present.

    HOME/models/OWNER--NAME/REVISION/      a checkpoint, or a GGUF file, as on the hub
        .NAME.part                         a partial download
    HOME/models/NAME-RECIPE-COMMIT-PLATFORM.gguf
                                           a GGUF file converted here from a checkpoint
    HOME/models/.COMMIT.busy               see commit_lock.py

A file of the right size counts as present: its hash was verified when it was downloaded, and
`verify` checks it again. Opens no connection.
"""

from __future__ import annotations

import platform
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgesppo.errors import OutputError
from edgesppo.hub.download import part_path
from edgesppo.lockfile.entries import GGUF
from edgesppo.lockfile.files import shipped_folder
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from edgesppo.lockfile.entries import PinnedBuild, PinnedFile, PinnedModel

_DIGITS = 12  # of a revision, in a file name
_COMMIT = re.compile(r"(?<=-)[0-9a-f]{12}(?=-)")
RECIPE: Final = "q4_k_m"  # the default type that a checkpoint is converted to
MERGED = "-lora-"  # in the recipe of a file that adapters are merged into


def root() -> Path:
    """The folder of all pulled models and of the files converted from them."""
    return cache_dir() / "models"


def platform_name() -> str:
    """The platform that a build is recorded for, such as "linux-x86_64"."""
    return f"{sys.platform}-{platform.machine().lower() or 'unknown'}"


def model_dir(entry: PinnedModel) -> Path:
    """The folder of the entry's own files, whether it exists or not; the entry must be pinned."""
    if entry.shipped is not None:
        return shipped_folder(entry)
    if entry.location is not None:
        return Path("/", entry.location)  # never relative, also in another system's form
    assert entry.repository is not None
    assert entry.revision is not None
    return root() / entry.repository.replace("/", "--") / entry.revision


def build_path(entry: PinnedModel, recipe: str = RECIPE, on_platform: str | None = None) -> Path:
    """The path of the entry's converted GGUF file, by default for this platform."""
    assert entry.revision is not None
    on_platform = on_platform or platform_name()
    return root() / f"{entry.name}-{recipe}-{entry.revision[:_DIGITS]}-{on_platform}.gguf"


def begun_pattern(entry: PinnedModel) -> str:
    """A pattern of the names, in the store, of what unfinished conversions of the entry left."""
    return f".{entry.name}-{RECIPE}*-{str(entry.revision)[:_DIGITS]}-*.gguf.edgesppo-*"


def is_ours(real: Path) -> bool:
    """Whether a path without links lies in our folders, each of which may itself be a link."""
    tops = {cache_dir().resolve(), root().resolve(), (cache_dir() / "converted").resolve()}
    return not tops.isdisjoint((real, *real.parents))


def commit_lock_path(revision: str) -> Path:
    """The lock file of a commit, which may be abbreviated to its first digits."""
    return root() / f".{revision[:_DIGITS]}.busy"


def commits(path: Path) -> list[str]:
    """The commits, perhaps abbreviated, that a path in the store may belong to."""
    if root() not in path.parents:
        return []
    parts = path.relative_to(root()).parts
    return [parts[1]] if len(parts) > 1 else _COMMIT.findall(parts[0])


def missing_files(entry: PinnedModel) -> list[PinnedFile]:
    """The entry's files that are absent or of the wrong size."""
    if not entry.is_pinned:
        return []
    return [file for file in entry.files if size_of(model_dir(entry) / file.path) != file.size]


def is_present(entry: PinnedModel) -> bool:
    """Whether all files of the entry are present."""
    return entry.is_pinned and not missing_files(entry)


def find_build(entry: PinnedModel, recipe: str | None = None) -> tuple[Path, PinnedBuild] | None:
    """A GGUF file converted from the entry that is present, preferably of the default recipe.

    One that adapters are merged into is another model: it is found only by its own recipe.
    """
    if entry.revision is None or not entry.is_pinned:
        return None
    for build in sorted(entry.builds, key=lambda build: build.recipe != RECIPE):
        path = build_path(entry, build.recipe)
        is_asked = MERGED not in build.recipe if recipe is None else recipe == build.recipe
        if is_asked and build.platform == platform_name() and size_of(path) == build.size:
            return path, build
    return None


def model_file(entry: PinnedModel) -> Path:
    """The path to load for an entry whose files are present: its folder, or its GGUF file."""
    return model_dir(entry) / entry.files[0].path if entry.kind == GGUF else model_dir(entry)


def size_of(path: Path) -> int | None:
    """Size of a file in bytes; None if there is none."""
    with suppress(OSError, ValueError):
        if path.is_file():
            return path.stat().st_size
    return None


def check_inside(path: Path) -> None:
    """Raise OutputError if a symbolic link in the path leads out of the store."""
    top = root().resolve()
    real = path.parent.resolve()
    if real != top and top not in real.parents:
        raise OutputError(
            f"{path} is really in {real}, outside of {top}; remove that link, or set EDGESPPO_HOME"
        )
    if part_path(path).is_symlink():
        raise OutputError(
            f"{part_path(path)} is a symbolic link, not created by edgesppo; remove it"
        )
