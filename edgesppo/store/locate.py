"""Resolve the MODEL that a user typed to a file or a checkpoint folder.

MODEL is a name from models.lock, a GGUF file, a folder that holds one, or a checkpoint folder.
Opens no connection.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import ModelNotFound, UsageError
from edgesppo.lockfile import layers, toml
from edgesppo.lockfile.entries import CHECKPOINT, REPOSITORY, PinnedModel
from edgesppo.store import imported, layout, user_state
from edgesppo.store.gguf_folder import model_in
from edgesppo.store.near import near_model

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = "demo"
REAL = "sppo-iter3"
_SHOWN = 200  # characters of a name in a message


@dataclass(frozen=True)
class Found:
    """A model on this machine: its name, its path, and whether that is a checkpoint folder."""

    name: str
    path: Path
    is_checkpoint: bool


def find(model: str | Path, advice: str | None = None) -> Found:
    """Find a model by name, file or folder. Raises ModelNotFound, UsageError.

    `advice` says what to do if there is none; by default, what to type in a shell.
    """
    if not isinstance(model, str | os.PathLike) or model == "":
        raise UsageError(f"model is {model!r}, expected a name or a path")
    path, is_folder, exists = Path(model), False, False
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        # These are raised for a name that is too long, an unknown user's home, and a NUL character.
        path = path.expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    if exists:
        found = model_in(path) if is_folder else path
        is_checkpoint = found.is_dir()
        name = path.resolve().name if is_checkpoint else found.stem
        return Found(name, found, is_checkpoint)
    lock = layers.read()
    entry = lock.models.get(str(model)) or lock.of_repository(str(model))
    if entry is not None:
        return checked(entry)
    raise ModelNotFound(
        f"{_shortened(str(model))!r}{near_model(str(model), lock)} is not a file, a folder or the"
        " name of a model "
        f"({', '.join(lock.models)}); {advice or _advice(str(model))}"
    )


def entry_of(model: str | Path) -> PinnedModel | None:
    """The lock's entry that MODEL names; None for a path that exists, and for an unknown name."""
    path = Path(model)
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # as for `find`
        if path.expanduser().exists():
            return None
    lock = layers.read()
    return lock.models.get(str(model)) or lock.of_repository(str(model))


def gguf_files() -> Iterator[tuple[PinnedModel, Path]]:
    """The lock's models whose GGUF file is on this machine, with that file."""
    for entry in layers.read().models.values():
        try:
            found = of_entry(entry)
        except (ModelNotFound, OSError):
            continue
        if not found.is_checkpoint:
            yield entry, found.path


def checked(entry: PinnedModel) -> Found:
    """As `of_entry`; raises ModelNotFound also for an imported file that is another one now."""
    imported.check(entry)
    return of_entry(entry)


def of_entry(entry: PinnedModel) -> Found:
    """Find what can be run of a lock's entry: its GGUF file, else its checkpoint.

    Raises ModelNotFound, which says how to get it.
    """
    build = layout.find_build(entry)
    if build is not None:
        return Found(entry.name, build[0], is_checkpoint=False)
    if layout.is_present(entry):
        is_checkpoint = entry.kind == CHECKPOINT
        return Found(entry.name, layout.model_file(entry), is_checkpoint=is_checkpoint)
    if entry.location is not None:
        missing = layout.missing_files(entry)[0]
        path = layout.model_dir(entry) / missing.path
        size = layout.size_of(path)
        now = (
            "no longer exists"
            if size is None
            else f"has {size:,} bytes, but {missing.size:,} are pinned"
        )
        raise ModelNotFound(
            f"{path}, imported as {entry.name}, {now}; import it again, or remove the name:"
            f" edgesppo rm {entry.name}"
        )
    how = " --convert" if entry.kind == CHECKPOINT else ""
    raise ModelNotFound(
        f"{entry.name} ({entry.repository}) is not on this machine; to get it:"
        f" edgesppo pull {entry.name}{how}"
    )


def _advice(model: str) -> str:
    """What to do about a MODEL that was not found."""
    repository = model.partition("@")[0]
    if REPOSITORY.fullmatch(repository) and not model.endswith(".gguf"):
        return f"to get a repository from the hub: edgesppo pull {repository} --convert"
    return "check the path, or start with: edgesppo try"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def demo() -> Found:
    """The shipped demo, even if a file, folder or other entry has the same name."""
    return of_entry(toml.read().models[DEMO])


def default() -> Found:
    """The model used last if it is still there; else sppo-iter3 if present; else the demo."""
    for model in (user_state.last(), REAL):
        if model is not None:
            with contextlib.suppress(ModelNotFound, UsageError):
                return find(model)
    return demo()


def argument_for(found: Found) -> str:
    """The MODEL argument that finds this model from any working folder: its name, or its path."""
    entry = layers.read().models.get(found.name)
    if entry is not None:
        with contextlib.suppress(ModelNotFound):
            if of_entry(entry) == found:
                return found.name
    return str(found.path.absolute())
