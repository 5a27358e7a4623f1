"""What other programs have here: which of it can be run, and importing what is chosen of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.gguf import gemma2
from edgesppo.gguf.file_types import file_type
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT, name_fault
from edgesppo.store import layout
from edgesppo.store.gguf_folder import head_keys
from edgesppo.store.programs import hub_cache, llama_cpp, lm_studio, ollama
from edgesppo.store.programs.folders import LocalModel, unreadable
from edgesppo.store.register import slug
from edgesppo.system.sanitize import one_line
from edgesppo.system.suggest import did_you_mean
from edgesppo.system.validate import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edgesppo.lockfile.entries import Lock

_PROGRAMS = (ollama, lm_studio, llama_cpp, hub_cache)
_ARCHITECTURE = "general.architecture"


@dataclass(frozen=True)
class FoundModel:
    """A model of another program: its type and bytes, and under which names it is imported.

    `fault` says why it cannot be run; `imported_as` is None until it is imported.
    """

    local: LocalModel
    type: str
    bytes: int
    fault: str | None
    imported_as: str | None

    @property
    def name(self) -> str:
        """What its program calls it."""
        return self.local.name


@dataclass
class Scan:
    """The Gemma-2 models, the number of others, and the folders looked into and not."""

    models: list[FoundModel]
    n_others: int
    folders: list[tuple[str, Path]]
    unreadable: list[tuple[Path, str]]


def scan() -> Scan:
    """Look into the folders of all programs. A file that several have is listed for the first.

    A program's own file may have several names, as in Ollama; it is listed under each.
    """
    lock, seen = layers.read(may_create=True), dict[str, list[LocalModel]]()
    found = Scan([], 0, [], [])
    for program in _PROGRAMS:
        for folder in program.folders():
            if why := unreadable(folder):
                found.unreadable.append((folder, why))
                continue
            if not folder.is_dir():
                continue
            found.folders.append((program.PROGRAM, folder))
            for local in _first_seen(program.models(folder), seen):
                model = _look(local, lock)
                if model is None:
                    found.n_others += 1
                else:
                    found.models.append(model)
    return found


def choose(models: Iterable[FoundModel], text: str) -> FoundModel:
    """The model with this name, or this number from 1, or this path. Raises UsageError."""
    models = list(models)
    if text.isdecimal() and len(text) < 6 and 0 < int(text) <= len(models):
        return models[int(text) - 1]
    named = [m for m in models if text in (m.name, str(m.local.path))]
    named = named or [m for m in models if m.name.casefold() == text.casefold()]
    named = named or [m for m in models if m.name.rpartition("/")[2].casefold() == text.casefold()]
    named = named or [m for m in models if _short(m.name).casefold() == text.casefold()]
    if len(named) == 1:
        return named[0]
    names = [m.name for m in models]
    if named:
        whole = [m.name for m in named]
        distinct = whole if len({*whole}) == len(whole) else [str(m.local.path) for m in named]
        listed = ", ".join(map(one_line, distinct))
        raise UsageError(f"{quoted(text)} is the name of {len(named)} models; name one of {listed}")
    raise UsageError(
        f"{quoted(text)}{did_you_mean(text, names)} is none of the models that were found:"
        f" {', '.join(map(one_line, names)) or 'there are none'}"
    )


def free_name(model: FoundModel, lock: Lock) -> str:
    """A name to import the model by that no entry of the lock has."""
    local = model.local
    short = _short(local.name)
    for title in (short, local.name, *(f"{short}-{n}" for n in range(2, 1000))):
        name = slug(re.sub(r"[/:@]+", "-", title))
        if name and name_fault(name) is None and lock.same_named(name) is None:
            return name
    raise UsageError(f"no free name for {quoted(local.name)}; choose one with --name")


def _short(name: str) -> str:
    """A model's name without its owner and the tag that Ollama takes by itself."""
    return name.rpartition("/")[2].removesuffix(":latest")


def _first_seen(
    models: Iterable[LocalModel], seen: dict[str, list[LocalModel]]
) -> Iterator[LocalModel]:
    """The models whose file is new, and further names of a file in the same program."""
    for model in models:
        others = seen.setdefault(os.path.realpath(model.path), [])
        if all(
            (other.program, other.path) == (model.program, model.path) and other.name != model.name
            for other in others
        ):
            others.append(model)
            yield model


def _look(local: LocalModel, lock: Lock) -> FoundModel | None:
    """What is known of a model without loading it; None for one of another architecture."""
    known = _imported_as(local, lock)
    if why := unreadable(local.path):
        return FoundModel(local, CHECKPOINT, 0, f"cannot be read: {why}", known)
    if local.path.is_dir():
        files = [path for path in local.path.iterdir() if path.suffix == ".safetensors"]
        size = sum(path.stat().st_size for path in files if path.is_file())
        return FoundModel(local, CHECKPOINT, size, local.fault, known)
    architecture = head_keys(local.path).get(_ARCHITECTURE)
    if architecture != gemma2.ARCHITECTURE:
        return None
    try:
        summary = gemma2.load_summary(local.path)
    except EdgesppoError as error:
        fault = str(error).removeprefix(f"{local.path}: ")
        return FoundModel(local, "?", local.path.stat().st_size, local.fault or fault, known)
    kind: Any = file_type(summary)
    return FoundModel(local, kind, summary.file_bytes, local.fault, known)


def _imported_as(local: LocalModel, lock: Lock) -> str | None:
    real = os.path.realpath(local.path)
    for entry in lock.models.values():
        if entry.location is None:
            continue
        if os.path.realpath(layout.model_file(entry)) == real:
            return entry.name
    return None
