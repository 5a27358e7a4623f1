"""The cache of the Hugging Face hub's own library: GGUF files and Gemma-2 checkpoints.

models--OWNER--NAME/refs/main                  the commit of a branch
models--OWNER--NAME/snapshots/COMMIT/FILE      a link into blobs/
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.store.gguf_folder import is_gguf_name
from edgesppo.store.programs.folders import (
    LocalModel,
    files_below,
    from_environment,
    home,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "hub cache"
_MODEL = "models--"
_DEPTH = 2  # folders below a snapshot
_MOST = 20_000
_SHORT = 8  # digits of a commit


def folders() -> list[Path]:
    """Where the hub's library keeps what it downloads."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        chosen = from_environment(variable)
        if chosen is not None:
            return [chosen]
    top = from_environment("HF_HOME")
    if top is None:
        top = (from_environment("XDG_CACHE_HOME") or home() / ".cache") / "huggingface"
    return [top / "hub"]


def models(folder: Path) -> Iterator[LocalModel]:
    """The GGUF files of every snapshot, named OWNER/NAME/FILE, and the checkpoints, OWNER/NAME."""
    for top in _folders(folder):
        if not top.name.startswith(_MODEL):
            continue
        repository = top.name.removeprefix(_MODEL).replace("--", "/", 1)
        snapshots = _folders(top / "snapshots")
        for snapshot in snapshots:
            at = f"@{snapshot.name[:_SHORT]}" if len(snapshots) > 1 else ""
            for path in files_below(snapshot, _DEPTH):
                if is_gguf_name(path.name):
                    name = path.relative_to(snapshot).with_suffix("").as_posix()
                    yield LocalModel(PROGRAM, f"{repository}{at}/{name}", path)
            if _is_checkpoint(snapshot):
                yield LocalModel(PROGRAM, f"{repository}{at}", snapshot)


def _is_checkpoint(snapshot: Path) -> bool:
    """Whether it holds a Gemma-2 checkpoint in safetensors, complete or not."""
    config = read_json(snapshot / "config.json")
    if not isinstance(config, dict) or config.get("model_type") != "gemma2":
        return False
    return any(path.suffix == ".safetensors" for path in files_below(snapshot, 0))


def _folders(folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    found.append(Path(entry.path))
                if len(found) >= _MOST:
                    break
    except (OSError, ValueError):
        pass
    return sorted(found)
