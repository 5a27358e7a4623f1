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

from edgesppo import lockfile, locks, place, remembered
from edgesppo.errors import ModelNotFound, OutputError, UsageError
from edgesppo.home import home
from edgesppo.pinned import CHECKPOINT, REPOSITORY, PinnedModel

DEMO = "demo"
REAL = "sppo-iter3"
# Raised when a converter of ours makes other files of the same checkpoint.
CONVERSION = 3
_SHOWN, _NAMED = 200, 80  # letters: in a message, in a file's name


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
    lock = locks.read()
    entry = lock.models.get(str(model)) or lock.of_repository(str(model))
    if entry is not None:
        return of_entry(entry)
    raise ModelNotFound(
        f"{_shortened(str(model))!r} is no file, no folder and no model's name "
        f"({', '.join(lock.models)}); {_advice(str(model))}"
    )


def of_entry(entry: PinnedModel) -> Found:
    """What of a lock's entry can be run here: a GGUF file, else the checkpoint itself."""
    made = place.build(entry)
    if made is not None:
        return Found(entry.name, made[0], is_checkpoint=False)
    if place.is_there(entry):
        is_checkpoint = entry.kind == CHECKPOINT
        return Found(entry.name, place.model_file(entry), is_checkpoint=is_checkpoint)
    if entry.location is not None:
        lacking = place.lacking(entry)[0]
        path = place.folder(entry) / lacking.path
        size = place.size_of(path)
        now = "is gone" if size is None else f"has {size:,} bytes, but {lacking.size:,} are pinned"
        raise ModelNotFound(
            f"{path}, imported as {entry.name}, {now}; import it again, or forget it:"
            f" edgesppo rm {entry.name}"
        )
    how = " --convert" if entry.kind == CHECKPOINT else ""
    raise ModelNotFound(
        f"{entry.name} ({entry.repository}) is not on this machine; get it:"
        f" edgesppo pull {entry.name}{how}"
    )


def _advice(model: str) -> str:
    """What whoever typed this may have meant."""
    repository = model.partition("@")[0]
    if REPOSITORY.fullmatch(repository) and not model.endswith(".gguf"):
        return f"get a repository of the hub first: edgesppo pull {repository} --convert"
    return "check the path, or try: edgesppo try"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def demo() -> Found:
    """The shipped demo, whatever else is called so where the person is."""
    return of_entry(lockfile.read().models[DEMO])


def default() -> Found:
    """The model used last, where it still is; else the real one, if it is here; else the demo."""
    for words in (remembered.last(), REAL):
        if words is not None:
            with contextlib.suppress(ModelNotFound, UsageError):
                return find(words)
    return demo()


def words_for(found: Found) -> str:
    """What to type for this model, wherever the person is then."""
    entry = locks.read().models.get(found.name)
    if entry is not None:
        with contextlib.suppress(ModelNotFound):
            if of_entry(entry) == found:
                return found.name
    return str(found.path.absolute())


def converted_path(checkpoint: Path, name: str, type: str) -> Path:
    """Where the converted copy of this very checkpoint is, or belongs.

    The file's name holds a mark of the folder's place, and a fingerprint of its small files and
    of the names, sizes and times of its weights: an edited checkpoint gets a new copy.
    """
    place = hashlib.sha256(os.fsencode(checkpoint.resolve())).hexdigest()[:8]
    digest = hashlib.sha256(f"{CONVERSION} {type}".encode())
    for file in sorted(p for p in checkpoint.iterdir() if is_read(p)):
        status = file.stat()
        digest.update(b"\0" + os.fsencode(file.name) + f"\0{status.st_size}\0".encode())
        if file.suffix == ".safetensors":
            digest.update(str(status.st_mtime_ns).encode())
        else:
            digest.update(file.read_bytes())
    folder = home() / "converted"
    return folder / f"{name[:_NAMED]}-{type}-{place}-{digest.hexdigest()[:16]}.gguf"


def remember_origin(copy: Path, checkpoint: Path) -> None:
    """Note beside a converted copy of which folder it is, so that it can go with that."""
    with contextlib.suppress(OSError):
        copy.with_suffix(".from").write_bytes(os.fsencode(checkpoint.resolve()))


def origin_of(copy: Path) -> Path | None:
    """The folder that a converted copy is of, where that was noted."""
    with contextlib.suppress(OSError, ValueError):
        return Path(os.fsdecode(copy.with_suffix(".from").read_bytes()))
    return None


def copies_of(checkpoint: Path) -> list[Path]:
    """The converted copies of a checkpoint folder that were noted."""
    found = sorted((home() / "converted").glob("*.gguf"))
    return [copy for copy in found if origin_of(copy) == checkpoint.resolve()]


def forget_older(copy: Path) -> None:
    """Remove the copies of what the checkpoint of this copy was before it was edited."""
    kept = copy.name.rsplit("-", 1)[0]
    for other in copy.parent.glob("*.gguf"):
        if other != copy and other.name.rsplit("-", 1)[0] == kept:
            for old in (other, other.with_suffix(".from")):
                with contextlib.suppress(OSError):
                    old.unlink()


def is_read(file: Path) -> bool:
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
