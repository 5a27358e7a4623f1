"""Owns the checks of an output's place before the work. Knows nothing of what is written."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from edgesppo.errors import OutputError


def check_target(path: Path, *, force: bool) -> Path:
    """Where the output will really go; refuses, before any work, what could not succeed."""
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
        raise OutputError(f"the output {path} exists and is not a file; name a file")
    if not force:
        raise OutputError(f"the output {path} exists; use --force (force=True) to replace it")
    return target


def check_space(target: Path, needed: int) -> None:
    """Refuse at once what would fail after minutes; where the system cannot tell, go on."""
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return
    if free < needed:
        raise OutputError(
            f"no space left for {target}: it needs {needed:,} bytes, {free:,} are free in"
            f" {target.parent}"
        )
