"""Owns where models live: a MODEL that a person typed -> a file or a checkpoint folder.

MODEL is a name from models.lock, a GGUF file or a checkpoint folder. Opens no
connection.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from edgesppo.errors import ModelNotFound, UsageError
from edgesppo.lockfile import layers, toml
from edgesppo.lockfile.entries import CHECKPOINT, REPOSITORY, PinnedModel
from edgesppo.store import layout, user_state

DEMO = "demo"
REAL = "sppo-iter3"
_SHOWN = 200  # letters of a name, in a message


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
    lock = layers.read()
    entry = lock.models.get(str(model)) or lock.of_repository(str(model))
    if entry is not None:
        return of_entry(entry)
    raise ModelNotFound(
        f"{_shortened(str(model))!r} is no file, no folder and no model's name "
        f"({', '.join(lock.models)}); {_advice(str(model))}"
    )


def of_entry(entry: PinnedModel) -> Found:
    """What of a lock's entry can be run here: a GGUF file, else the checkpoint itself."""
    made = layout.find_build(entry)
    if made is not None:
        return Found(entry.name, made[0], is_checkpoint=False)
    if layout.is_there(entry):
        is_checkpoint = entry.kind == CHECKPOINT
        return Found(entry.name, layout.model_file(entry), is_checkpoint=is_checkpoint)
    if entry.location is not None:
        lacking = layout.missing_files(entry)[0]
        path = layout.model_dir(entry) / lacking.path
        size = layout.size_of(path)
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
    return of_entry(toml.read().models[DEMO])


def default() -> Found:
    """The model used last, where it still is; else the real one, if it is here; else the demo."""
    for words in (user_state.last(), REAL):
        if words is not None:
            with contextlib.suppress(ModelNotFound, UsageError):
                return find(words)
    return demo()


def words_for(found: Found) -> str:
    """What to type for this model, wherever the person is then."""
    entry = layers.read().models.get(found.name)
    if entry is not None:
        with contextlib.suppress(ModelNotFound):
            if of_entry(entry) == found:
                return found.name
    return str(found.path.absolute())
