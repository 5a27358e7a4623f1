"""Owns where models live: a MODEL that a person typed -> a file or a checkpoint folder.

MODEL is a name from models.lock, a GGUF file or a checkpoint folder. Also says where the
converted copy of a checkpoint is kept. Knows nothing of llama.cpp and opens no connection.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edgesppo import lockfile
from edgesppo.errors import ModelNotFound, OutputError
from edgesppo.home import home

DEMO = "demo"
# Raised when a converter of ours makes other files of the same checkpoint.
CONVERSION = 2


@dataclass(frozen=True)
class Found:
    """A model on this machine: what to call it, where it is, and whether it is a checkpoint."""

    name: str
    path: Path
    is_checkpoint: bool


def find(model: str | Path) -> Found:
    """Find a model by name, file or folder. Raises ModelNotFound, saying what would be one."""
    path = Path(model).expanduser()
    if path.is_dir():
        return Found(path.resolve().name, path, is_checkpoint=True)
    if path.exists():
        return Found(path.stem, path, is_checkpoint=False)
    entries = lockfile.read().models
    entry = entries.get(str(model))
    if entry is None:
        raise ModelNotFound(
            f"{str(model)!r} is no file, no folder and no name in models.lock "
            f"(which has: {', '.join(sorted(entries))}); check the path, or try: edgesppo try"
        )
    return Found(entry.name, lockfile.shipped_folder(entry), is_checkpoint=True)


def converted_path(checkpoint: Path, name: str, type: str) -> Path:
    """Where the converted copy of this very checkpoint is, or belongs.

    The file's name holds a fingerprint of the checkpoint's small files and of the names, sizes
    and times of its weights, so that an edited checkpoint gets a new copy.
    """
    digest = hashlib.sha256(f"{CONVERSION} {type}".encode())
    for file in sorted(p for p in checkpoint.iterdir() if p.is_file()):
        status = file.stat()
        digest.update(f"\0{file.name}\0{status.st_size}\0".encode())
        if file.suffix in (".json", ".jinja", ".model"):
            digest.update(file.read_bytes())
        elif file.suffix == ".safetensors":
            digest.update(str(status.st_mtime_ns).encode())
    return home() / "converted" / f"{name}-{type}-{digest.hexdigest()[:16]}.gguf"


def make_folder(folder: Path) -> None:
    """Create a folder of ours. Raises OutputError, naming it, when that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be created: {error.strerror}; set EDGESPPO_HOME to a folder "
            "that can be written"
        ) from None
