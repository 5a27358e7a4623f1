"""Check before the work that the output can be written: its folder, its name, the disk space."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from edgesppo.errors import OutputError
from edgesppo.system.paths import cache_dir


def check_target(path: Path, *, force: bool) -> Path:
    """Resolve the output's path; OutputError if it cannot be written, or exists without `force`."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OutputError(f"the output folder {target.parent} does not exist; create it first")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        raise OutputError(
            f"the output {path} exists and is not a file; expected a file name that ends in .gguf"
        )
    if not force:
        raise OutputError(
            f"the output {path} exists already; use --force (force=True) to replace it"
        )
    return target


def check_space(target: Path, needed: int) -> None:
    """Raise OutputError if the disk has less than `needed` bytes free; pass if that is unknown."""
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return
    if free < needed:
        other = "choose another folder"
        if target.is_relative_to(cache_dir()):
            other = "set EDGESPPO_HOME to a folder on another disk"
        raise OutputError(
            f"not enough disk space for {target}: it needs {needed:,} bytes, but {target.parent}"
            f" has {free:,} free; free some, or {other}"
        )
