"""The files of this project: those that git tracks, or where there is no git, those of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# What a source distribution has beside the files that went into it.
GENERATED = ("PKG-INFO", "setup.cfg", "edgesppo.egg-info/")
# What tools leave in the folder of a project.
_LEFT = ("__pycache__", "build", "dist")
_HIDDEN = (".ci", ".github", ".gitignore")


def tracked() -> list[str]:
    """Their paths from the project's folder, with slashes, in order."""
    names = _of_git() if (ROOT / ".git").exists() and shutil.which("git") else None
    return names or sorted(_of_the_tree())


def _of_git() -> list[str] | None:
    """None where git does not answer, as in a folder that is another user's."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False
    )
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    return None if done.returncode else sorted(n for n in names if (ROOT / n).exists())


def _of_the_tree() -> list[str]:
    names: list[str] = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not _is_left(name)]
        for name in files:
            path = os.path.relpath(f"{folder}/{name}", ROOT).replace(os.sep, "/")
            if not _is_left(name) and not path.startswith(GENERATED):
                names.append(path)
    return names


def _is_left(name: str) -> bool:
    if name.startswith("."):
        return name not in _HIDDEN
    return name in _LEFT or name.endswith((".egg-info", ".gguf", ".pyc"))


def copy_tracked(folder: Path) -> None:
    """Copy them all into a folder."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
