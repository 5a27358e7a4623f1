"""Ollama's models: manifests, which name the models, and blobs, which are stored by their hash.

manifests/HOST/NAMESPACE/MODEL/TAG    JSON: the layers, each with a media type and a digest
blobs/sha256-HEX                      the layers; one of them is the GGUF file
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.store.programs.folders import (
    LocalModel,
    files_below,
    from_environment,
    home,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "Ollama"
_MANIFESTS = ("manifests", "manifests-v2", "manifest-v2")
_DEPTH = 4  # folders between `manifests` and a tag
# The parts of a name that Ollama leaves out.
_HOSTS, _NAMESPACE = ("registry.ollama.ai", "ollama.com"), "library"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LAYER = "application/vnd.ollama.image."
_STAYS = {"system": "system text", "params": "parameters", "messages": "messages"}


def folders() -> list[Path]:
    """Where Ollama keeps its models: for the user, and for the service that its installer makes."""
    chosen = from_environment("OLLAMA_MODELS")
    own = [chosen] if chosen is not None else [home() / ".ollama" / "models"]
    if sys.platform.startswith("linux"):
        own.append(Path("/usr/share/ollama/.ollama/models"))
    return own


def models(folder: Path) -> Iterator[LocalModel]:
    """The models of one of these folders whose file is there."""
    for name in _MANIFESTS:
        top = folder / name
        for manifest in files_below(top, _DEPTH):
            found = _model(folder, manifest, manifest.relative_to(top).parts)
            if found is not None:
                yield found


def _model(folder: Path, manifest: Path, parts: tuple[str, ...]) -> LocalModel | None:
    if len(parts) < 2 or parts[-1].startswith("."):
        return None
    layers = _layers(read_json(manifest))
    weights = [digest for kind, digest in layers if kind == "model"]
    if not weights:
        return None
    path = folder / "blobs" / f"sha256-{weights[0]}"
    if not path.is_file():
        return None
    kinds = {kind for kind, _ in layers}
    stays = [text for kind, text in _STAYS.items() if kind in kinds]
    note = f"not imported: Ollama's {' and '.join(stays)}" if stays else None
    fault = None
    if "adapter" in kinds:
        fault = "it has an adapter, which edgesppo does not apply"
    elif "projector" in kinds:
        fault = "it has a projector for images: edgesppo runs text models"
    return LocalModel(PROGRAM, _name(parts), path, note, fault)


def _layers(manifest: Any) -> list[tuple[str, str]]:
    """Kind and hash of every layer that is as it should be."""
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    found = []
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict):
            kind, digest = str(layer.get("mediaType")), _DIGEST.fullmatch(str(layer.get("digest")))
            if kind.startswith(_LAYER) and digest is not None:
                found.append((kind.removeprefix(_LAYER).partition(";")[0], digest[1]))
    return found


def _name(parts: tuple[str, ...]) -> str:
    """A model's name as `ollama list` shows it, such as gemma2:9b."""
    *owner, tag = parts
    if owner[0] in _HOSTS:
        owner = owner[1:]
        if owner and owner[0] == _NAMESPACE:
            owner = owner[1:]
    return f"{'/'.join(owner)}:{tag}"
