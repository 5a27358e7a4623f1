"""Register a GGUF file or checkpoint folder of the user's own in their lock (`edgesppo import`).

The model is registered by reference: nothing is copied or linked, and the recorded hashes tell
whether it has changed. The converter (edgesppo_convert) is imported only for a checkpoint.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadCheckpoint, BadModelFile, ModelNotFound, UsageError
from edgesppo.gguf import gemma2, metadata
from edgesppo.hub.model_card import CARD, read_card
from edgesppo.llama.load_check import check_loads
from edgesppo.lockfile import layers
from edgesppo.lockfile.checks import check_location
from edgesppo.lockfile.entries import (
    CHECKPOINT,
    GGUF,
    UNKNOWN_LICENSE,
    PinnedFile,
    PinnedModel,
    check_model_name,
    is_link,
    name_fault,
    name_is_taken,
)
from edgesppo.store import imported
from edgesppo.store.converted import is_input
from edgesppo.store.gguf_folder import model_in
from edgesppo.store.layout import model_file
from edgesppo.store.near import near_file
from edgesppo.system.fs import hash_file
from edgesppo.system.paths import expand_user
from edgesppo.system.shell import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.gguf.gemma2 import Summary

    # Called with the number of bytes hashed so far, and the total.
    HashProgress = Callable[[int, int], None]

_MAX_NAME = 64
# The name of a file that is stored under its hash, with or without the hash's kind before it.
_IS_HASH = re.compile(r"(?:sha(?:1|256|512)[-:_])?[0-9a-f]{32,128}", re.IGNORECASE)


def register(
    path: Path,
    name: str | None = None,
    on_hash: HashProgress | None = None,
    description: str | None = None,
) -> PinnedModel:
    """Check, hash and record a model of the user's own; returns its new entry.

    `name` defaults to one made from the file's name, or where that is only a hash, as of Ollama's
    and the Hugging Face cache's files, from what the file says of itself. Raises ModelNotFound,
    BadModelFile, BadCheckpoint, UsageError and OutputError.
    """
    source = _model_at(path)
    folder, kind = (source, CHECKPOINT) if source.is_dir() else (source.parent, GGUF)
    try:
        title, found = _checkpoint(source) if source.is_dir() else _gguf(source)
    except ModelNotFound as error:
        raise ModelNotFound(
            f"{error}{near_file(source)}; check the path, or list the models of other programs:"
            " edgesppo import --scan"
        ) from None
    check_location(str(folder), str(path))
    chosen = name or _name(title)
    check_model_name(chosen)
    _check_free(layers.read(may_create=True).same_named(chosen), chosen, kind, source)
    names = [source.name] if kind == GGUF else _input_names(folder)
    for file in names:
        if fault := name_fault(file):
            raise UsageError(f"{folder / file}: the name {file!r} {fault}; rename the file")
    status = source.stat()
    files = _hashes(folder, names, on_hash)
    if description is not None:
        found["description"] = description
    entry = PinnedModel(name=chosen, kind=kind, location=str(folder), files=files, **found)

    def record(before: PinnedModel | None) -> PinnedModel:
        _check_free(before, chosen, kind, source)  # another import may have taken it meanwhile
        return entry

    layers.update_entry(chosen, record)
    if kind == GGUF:
        imported.remember(source, files[0].digest, status)
    return entry


def _model_at(path: Path) -> Path:
    """The absolute path of a file or checkpoint folder, or of the GGUF file that a folder holds."""
    source = _absolute(expand_user("the path", str(path)))
    try:
        str(source).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{path}: the path is not valid UTF-8, so a lock cannot hold it; rename the file"
        ) from None
    return model_in(source) if source.is_dir() else source


def _absolute(path: Path) -> Path:
    """The absolute path without "..", but with its last part as given, even if that is a link."""
    if sys.platform == "win32":  # where `resolve` turns a drive of the network into its share
        return Path(os.path.normpath(path.absolute()))
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def _checkpoint(folder: Path) -> tuple[str, dict[str, Any]]:
    """Check a checkpoint; returns its title, and the fields of its entry that its card yields."""
    from edgesppo_convert.plan.dry_run import look_ahead
    from edgesppo_convert.source.checkpoint import Checkpoint

    look_ahead(folder)
    with Checkpoint(folder) as checkpoint:
        card, name = read_card(checkpoint.read_small(CARD)), checkpoint.origin.name
    licence = card.license or card.license_in_text or UNKNOWN_LICENSE
    text = card.license_in_text if card.license else None
    return name, {
        "description": f"{name}, a checkpoint of your own",
        "license": licence,
        "license_in_text": text,
        "license_link": _link(card.license_link),
    }


def _gguf(path: Path) -> tuple[str, dict[str, Any]]:
    """Check a GGUF file as a run would; returns its title, and what its keys yield for its entry.

    Raises what loading it raises.
    """
    summary = gemma2.load_summary(path)
    check_loads(path)
    keys = summary.keys
    title = own_title(path, summary)
    return title, {
        "description": f"{metadata.text(keys, 'general.name') or title}, a file of your own",
        "license": metadata.text(keys, "general.license") or UNKNOWN_LICENSE,
        "license_in_text": metadata.text(keys, "edgesppo.license.in_text"),
        "license_link": _link(metadata.text(keys, "general.license.link")),
    }


def own_title(path: Path, summary: Summary) -> str:
    """The name of a GGUF file; where that is only a hash, what its keys call the model."""
    if not _IS_HASH.fullmatch(path.stem):
        return path.stem
    name = metadata.text(summary.keys, "general.name") or ""
    parts = [metadata.text(summary.keys, f"general.{key}") for key in ("basename", "size_label")]
    parameters = sum(math.prod(tensor.dims) for tensor in summary.tensors)
    size = f"{parameters / 1e9:.1f}b" if parameters >= 10**8 else f"{parameters / 1e6:.1f}m"
    titles = [name, "-".join(part for part in parts if part), f"{gemma2.ARCHITECTURE}-{size}"]
    return next(title for title in titles if _is_title(title))


def _is_title(text: str) -> bool:
    """Whether a valid name can be made from a text, and it says more than a hash does."""
    name = slug(text)
    return bool(name) and not _IS_HASH.fullmatch(text.strip()) and name_fault(name) is None


def slug(text: str) -> str:
    """A text in the characters that the name of an entry may have; empty if none remain."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:_MAX_NAME].strip("-._")


def _name(title: str) -> str:
    """A valid entry name, made from a title."""
    return slug(title) or "mine"


def _check_free(taken: PinnedModel | None, name: str, kind: str, source: Path) -> None:
    """Raise UsageError if `taken`, the entry of this name, is of another file or folder."""
    if taken is None or (
        taken.location is not None
        and (taken.name, taken.kind, model_file(taken)) == (name, kind, source)
    ):
        return
    raise name_is_taken(taken, f"edgesppo import {shell_word(str(source))} --name NAME")


def _input_names(folder: Path) -> list[str]:
    found = [path.name for path in folder.iterdir() if is_input(path) or path.name == CARD]
    if not found:
        raise BadCheckpoint(
            f"{folder} has no checkpoint files; expected config.json, a tokenizer and safetensors"
        )
    return sorted(found)


def _hashes(folder: Path, names: list[str], on_hash: HashProgress | None) -> tuple[PinnedFile, ...]:
    total = sum((folder / name).stat().st_size for name in names)
    done, found = 0, list[PinnedFile]()
    for name in names:
        digest = hashlib.sha256()
        try:
            size = hash_file(folder / name, digest, on_hash, done=done, total=total)
        except FileNotFoundError:
            raise ModelNotFound(f"{folder / name}: no such file") from None
        except OSError as error:
            raise BadModelFile(f"{folder / name}: cannot be read: {error.strerror}") from None
        done += size
        found.append(PinnedFile(name, size, digest.hexdigest()))
    return tuple(found)


def _link(text: str | None) -> str | None:
    return text if text is not None and is_link(text) else None
