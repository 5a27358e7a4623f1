"""LM Studio's models: GGUF files below PUBLISHER/REPOSITORY."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.store.gguf_folder import is_gguf_name
from edgesppo.store.programs.folders import LocalModel, files_below, home, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "LM Studio"
_DEPTH = 4
_MAX_PATH = 4096


def folders() -> list[Path]:
    """Where LM Studio keeps models: as its settings say, and where it does and did by itself."""
    own = [_home() / "models", home() / ".cache" / "lm-studio" / "models"]
    settings = read_json(_home() / "settings.json")
    chosen = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    return [Path(chosen), *own] if isinstance(chosen, str) and chosen else own


def models(folder: Path) -> Iterator[LocalModel]:
    """The GGUF files of one of these folders, named PUBLISHER/REPOSITORY/FILE."""
    for path in files_below(folder, _DEPTH):
        if is_gguf_name(path.name):
            name = path.relative_to(folder).with_suffix("").as_posix()
            yield LocalModel(PROGRAM, name, path)


def _home() -> Path:
    """LM Studio's own folder; it leaves a file with the path in the home folder."""
    pointer = home() / ".lmstudio-home-pointer"
    with suppress(OSError, ValueError):
        if pointer.is_file() and pointer.stat().st_size <= _MAX_PATH:
            text = pointer.read_text(encoding="utf-8").strip()
            if text and Path(text).is_dir():
                return Path(text)
    return home() / ".lmstudio"
