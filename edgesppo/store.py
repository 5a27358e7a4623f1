"""Owns where models live: a MODEL that a person typed -> a file or a checkpoint folder.

MODEL is a name from models.lock, a GGUF file or a checkpoint folder. Also says where the
converted copy of a checkpoint is kept. Knows nothing of llama.cpp and opens no connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from edgesppo import lockfile
from edgesppo.errors import ModelNotFound, OutputError, UsageError
from edgesppo.home import home

DEMO = "demo"
# Raised when a converter of ours makes other files of the same checkpoint.
CONVERSION = 3
_SHOWN = 80


@dataclass(frozen=True)
class Found:
    """A model on this machine: what to call it, where it is, and whether it is a checkpoint."""

    name: str
    path: Path
    is_checkpoint: bool


def find(model: str | Path) -> Found:
    """Find a model by name, file or folder. Raises ModelNotFound, saying what would be one."""
    if not isinstance(model, str | os.PathLike) or model == "":
        raise UsageError(f"model is {model!r}, expected a name or a path")
    path = Path(model)
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        # Raised for names that are too long, an unknown user's home, and NUL characters.
        path = path.expanduser()
        if path.is_dir():
            return Found(path.resolve().name, path, is_checkpoint=True)
        if path.exists():
            return Found(path.stem, path, is_checkpoint=False)
    entries = lockfile.read().models
    entry = entries.get(str(model))
    if entry is not None and entry.shipped is not None:
        return _shipped(entry)
    if entry is not None:
        raise ModelNotFound(
            f"{entry.name} ({entry.repository}) is not on this machine; convert it from the hub: "
            f"edgesppo convert {entry.repository}@COMMIT -o {entry.name}.gguf"
        )
    raise ModelNotFound(
        f"{_shortened(str(model))!r} is no file, no folder and no model's name "
        f"({', '.join(entries)}); {_advice(str(model))}"
    )


def _advice(model: str) -> str:
    """What whoever typed this may have meant."""
    repository = model.partition("@")[0]
    if lockfile.REPOSITORY.fullmatch(repository) and not model.endswith(".gguf"):
        name = repository.partition("/")[2]
        return (
            "a repository of the hub is converted first: "
            f"edgesppo convert {repository}@COMMIT -o {name}.gguf"
        )
    return "check the path, or try: edgesppo try"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def demo() -> Found:
    """The shipped demo, whatever else is called so where the person is."""
    return _shipped(lockfile.read().models[DEMO])


def _shipped(entry: lockfile.PinnedModel) -> Found:
    return Found(entry.name, lockfile.shipped_folder(entry), is_checkpoint=True)


def converted_path(checkpoint: Path, name: str, type: str) -> Path:
    """Where the converted copy of this very checkpoint is, or belongs.

    The file's name holds a mark of the folder's place, and a fingerprint of its small files and
    of the names, sizes and times of its weights: an edited checkpoint gets a new copy.
    """
    place = hashlib.sha256(os.fsencode(checkpoint.resolve())).hexdigest()[:8]
    digest = hashlib.sha256(f"{CONVERSION} {type}".encode())
    for file in sorted(p for p in checkpoint.iterdir() if _is_read(p)):
        status = file.stat()
        digest.update(b"\0" + os.fsencode(file.name) + f"\0{status.st_size}\0".encode())
        if file.suffix == ".safetensors":
            digest.update(str(status.st_mtime_ns).encode())
        else:
            digest.update(file.read_bytes())
    folder = home() / "converted"
    return folder / f"{name[:_SHOWN]}-{type}-{place}-{digest.hexdigest()[:16]}.gguf"


def forget_older(copy: Path) -> None:
    """Remove the copies of what the checkpoint of this copy was before it was edited."""
    kept = copy.name.rsplit("-", 1)[0]
    for other in copy.parent.glob("*.gguf"):
        if other != copy and other.name.rsplit("-", 1)[0] == kept:
            with contextlib.suppress(OSError):
                other.unlink()


def _is_read(file: Path) -> bool:
    """Whether the converter looks at a file: another one beside them makes no new model."""
    kinds = (".json", ".jinja", ".model", ".safetensors")
    return file.suffix in kinds and file.is_file()


def make_folder(folder: Path) -> None:
    """Create a folder of ours. Raises OutputError, naming it, when that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be created: {error.strerror}; set EDGESPPO_HOME to a folder "
            "that can be written"
        ) from None
