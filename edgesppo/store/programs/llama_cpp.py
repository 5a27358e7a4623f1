"""llama.cpp's own cache: files named OWNER_REPOSITORY_FILE, with their address beside them.

    bartowski_gemma-2-9b-it-GGUF_gemma-2-9b-it-Q4_K_M.gguf
    bartowski_gemma-2-9b-it-GGUF_gemma-2-9b-it-Q4_K_M.gguf.json     {"url": ...}
    manifest=bartowski=gemma-2-9b-it-GGUF=Q4_K_M.json

Its newer versions use the hub's cache, or the folder that $LLAMA_CACHE names in the same form.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from edgesppo.store.gguf_folder import is_gguf_name
from edgesppo.store.programs import hub_cache
from edgesppo.store.programs.folders import (
    LocalModel,
    files_below,
    from_environment,
    home,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PROGRAM = "llama.cpp"
_MANIFEST = re.compile(r"manifest=([^=]+)=([^=]+)=[^=]+\.json")
_ADDRESS = re.compile(r"https?://[^/]+/([^/]+/[^/]+)/resolve/[^/]+/([^?#]+)")


def folders() -> list[Path]:
    """Where llama.cpp keeps what it downloads."""
    chosen = from_environment("LLAMA_CACHE")
    if chosen is not None:
        return [chosen]
    if sys.platform == "darwin":
        return [home() / "Library" / "Caches" / "llama.cpp"]
    if os.name == "nt":
        return [(from_environment("LOCALAPPDATA") or home() / "AppData/Local") / "llama.cpp"]
    return [(from_environment("XDG_CACHE_HOME") or home() / ".cache") / "llama.cpp"]


def models(folder: Path) -> Iterator[LocalModel]:
    """The GGUF files of this folder, named by the repositories that they come from."""
    files = list(files_below(folder, 0))
    manifests = [found for path in files if (found := _MANIFEST.fullmatch(path.name))]
    repositories = [(found[1], found[2]) for found in manifests]
    for path in files:
        if is_gguf_name(path.name):
            yield LocalModel(PROGRAM, _name(path, repositories), path)
    for model in hub_cache.models(folder):
        yield LocalModel(PROGRAM, model.name, model.path, model.note, model.fault)


def _name(path: Path, repositories: Sequence[tuple[str, str]]) -> str:
    """Its name in its repository, by the file beside it or the manifests; else the file's own."""
    beside = read_json(path.with_name(f"{path.name}.json"))
    url = beside.get("url") if isinstance(beside, dict) else None
    address = _ADDRESS.fullmatch(url) if isinstance(url, str) else None
    if address is not None:
        return f"{address[1]}/{address[2].removesuffix('.gguf')}"
    for owner, name in repositories:
        start = f"{owner}_{name}_"
        if path.name.startswith(start):
            return f"{owner}/{name}/{path.stem.removeprefix(start)}"
    return path.stem
