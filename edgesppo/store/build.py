"""Convert a pinned checkpoint to a GGUF file in the store, and record the file in the lock.

Converts the checkpoint's folder if it is here, else fetches shard by shard from the hub. The
converter (edgesppo_convert) is imported only when it is needed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo._version import __version__
from edgesppo.errors import OutputError, UsageError
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT, PinnedBuild
from edgesppo.store import commit_lock, layout, pull
from edgesppo.store.converted import CONVERTER_VERSION
from edgesppo.system.fs import FileSystem, cannot_write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgesppo.hub.download import FetchProgress
    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.system.conversion_progress import Progress


def build(
    entry: PinnedModel,
    *,
    adapters: Sequence[str] = (),
    on_convert: Callable[[Progress], None] | None = None,
    on_fetch: FetchProgress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Path:
    """Return the GGUF file of a pinned checkpoint of the hub, converting it if it is absent.

    `adapters` are merged into it, each as DIR or DIR=WEIGHT: that is a file of its own. The file
    is recorded in the lock with its hash. `on_wait` is called with the process that holds the
    commit, if one does. Raises UsageError if the entry is not a checkpoint of the hub, and
    OutputError if the same versions recorded another hash before.
    """
    if entry.kind != CHECKPOINT or entry.repository is None:
        raise UsageError(
            f"{entry.name} is not a checkpoint of the hub: there is nothing to convert"
        )
    files, recipe = FileSystem(), recipe_with(adapters)
    with commit_lock.hold(str(entry.revision), on_wait, files):
        entry = layers.read().models.get(entry.name, entry)
        present = layout.find_build(entry, recipe)
        if present is not None:
            return present[0]
        return _convert(entry, recipe, adapters, on_convert, on_fetch, files)


def recipe_with(adapters: Sequence[str]) -> str:
    """The recipe of the default type with these adapters; raises the errors of reading them."""
    if not adapters:
        return layout.RECIPE
    from edgesppo_convert.gemma2.adapter_config import LoraConfig
    from edgesppo_convert.source.adapter import open_adapters

    with open_adapters(adapters) as opened:
        for each in opened:
            LoraConfig(each.config)  # refuses what is not plain LoRA
        marks = [(each.weight, each.digests) for each in opened]
    digest = hashlib.sha256(json.dumps(marks).encode()).hexdigest()
    return f"{layout.RECIPE}{layout.MERGED}{digest[:10]}"


def _convert(
    entry: PinnedModel,
    recipe: str,
    adapters: Sequence[str],
    on_convert: Callable[[Progress], None] | None,
    on_fetch: FetchProgress | None,
    files: FileSystem,
) -> Path:
    from edgesppo.llama.library import LIBRARY_VERSION
    from edgesppo_convert import convert

    source: str | Path = layout.model_dir(entry)
    if not layout.is_present(entry):
        pull.check_listing(entry)
        source = f"{entry.repository}@{entry.revision}"
    output = layout.build_path(entry, recipe)
    layout.check_inside(output)
    result = convert(
        source,
        output,
        type=layout.RECIPE,
        adapters=adapters,
        progress=on_convert,
        fetched=on_fetch,
        force=True,
    )
    build = PinnedBuild(
        recipe=recipe,
        platform=layout.platform_name(),
        converter=f"edgesppo {__version__}, conversion {CONVERTER_VERSION}",
        library=f"llama-cpp-python {LIBRARY_VERSION}",
        size=output.stat().st_size,
        sha256=result.sha256,
    )
    _check_reproduced(entry, build, output, files)
    layers.update_entry(entry.name, lambda before: _with_build(before or entry, build))
    return output


def _check_reproduced(
    entry: PinnedModel, build: PinnedBuild, output: Path, files: FileSystem
) -> None:
    """Raise OutputError if the same versions on the same platform recorded another hash before."""
    before = entry.build(build.recipe, build.platform)
    if before is None or replace(before, size=build.size, sha256=build.sha256) != build:
        return
    if before.sha256 == build.sha256:
        return
    other = output.with_name(output.name + ".differs")
    try:
        files.replace(output, other)
    except OSError as error:
        raise cannot_write(other, error) from error
    raise OutputError(
        f"{output.name} has the sha256 {build.sha256}, but {before.sha256} is recorded for it in"
        f" {layers.write_target()}; the new file is kept as {other.name}; if you trust it, remove"
        " the record"
    )


def _with_build(entry: PinnedModel, build: PinnedBuild) -> PinnedModel:
    kept = (b for b in entry.builds if (b.recipe, b.platform) != (build.recipe, build.platform))
    return replace(entry, builds=(*kept, build))
