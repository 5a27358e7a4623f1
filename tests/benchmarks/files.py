"""The model files that benchmarks run on: random weights of the real shapes, made once.

    python -m tests.benchmarks.files SHAPE [SHAPE ...]

CACHE/benchmarks/SHAPE                 the checkpoint in bfloat16, of the shapes that are converted
CACHE/benchmarks/SHAPE-TYPE-LAYOUT.gguf
Random weights take as long as real ones; only what depends on the text itself (drafts, quality)
has to be measured on trained ones.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from edgesppo.gguf import gemma2
from edgesppo.system.paths import cache_dir
from edgesppo.tuning.autotune import find_settings
from edgesppo.tuning.settings_cache import cached_settings, store
from edgesppo_convert import convert
from tests.support.checkpoints import SHAPES, write_checkpoint
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.planning.run_config import RunConfig

# The checkpoint of a larger one takes 18 GB and is not kept.
_KEPT = ("0.15b", "0.5b", "2b")
_PART = ".part"
_DOCUMENTS = ("README.md", "CHANGELOG.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md")


def folder() -> Path:
    """Where they are kept."""
    made = cache_dir() / "benchmarks"
    made.mkdir(parents=True, exist_ok=True)
    return made


def checkpoint(shape: str) -> Path:
    """A checkpoint of a named shape, in four shards."""
    path = folder() / shape
    if not path.exists():
        part = path.with_name(shape + _PART)
        shutil.rmtree(part, ignore_errors=True)
        write_checkpoint(part, SHAPES[shape], shards=4)
        part.rename(path)
    return path


def model(shape: str, type: str = "q4_k_m", layout: str = "edge") -> Path:
    """A GGUF file of a named shape; `layout` "standard" is llama.cpp's own order of tensors."""
    path = folder() / f"{shape}-{type}-{layout}.gguf"
    if not path.exists():
        source = checkpoint(shape)
        convert(source, path, type=type, layout=layout)
        if shape not in _KEPT:
            shutil.rmtree(source)
    return path


def tuned(path: Path, reordered: Path | None = None) -> RunConfig:
    """The fastest settings here, as after a user's first start; measured now if need be.

    They are kept for good, even if other programs were busy meanwhile.
    A file of the same weights in another order runs with the same settings.
    """
    summary = gemma2.load_summary(path)
    found = cached_settings(summary, "turn")
    if found is None:
        found = find_settings(summary, "turn")
        store(summary, "turn", found)
    if reordered is not None:
        store(gemma2.load_summary(reordered), "turn", found)
    return found


def text() -> Path:
    """Plain English text to measure quality on: this project's documents."""
    path = folder() / "text.txt"
    documents = [ROOT / name for name in _DOCUMENTS]
    documents += sorted((ROOT / "edgesppo" / "help").glob("*.md"))
    written = "\n\n".join(file.read_text(encoding="utf-8") for file in documents)
    path.write_text(written.encode("ascii", "ignore").decode() * 2, encoding="utf-8")
    return path


def main() -> None:
    """Make the files of the named shapes."""
    for shape in sys.argv[1:]:
        for layout in ("standard", "edge") if shape in _KEPT else ("edge",):
            path = model(shape, layout=layout)
            print(f"{path}: {path.stat().st_size / 1e6:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
