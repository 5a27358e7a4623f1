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
from edgesppo.errors import EdgesppoError, OutputError, UsageError
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT, PinnedBuild
from edgesppo.store import commit_lock, layout, pull
from edgesppo.store.converted import CONVERTER_VERSION
from edgesppo.system import notices
from edgesppo.system.fs import FileSystem
from edgesppo.system.shell import shell_word

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
    OutputError, before anything is fetched where the lock cannot be written.
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
        return _convert(entry, recipe, adapters, on_convert, on_fetch)


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
) -> Path:
    from edgesppo.llama.library import LIBRARY_VERSION
    from edgesppo_convert import convert

    layers.check_writable()
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
        on_progress=on_convert,
        on_fetch=on_fetch,
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
    _record(entry, build, output)
    return output


def _record(entry: PinnedModel, build: PinnedBuild, output: Path) -> None:
    """Add the file to the lock, and say so if the same versions recorded another hash before."""

    def with_build(before: PinnedModel | None) -> PinnedModel:
        before = before or entry
        other = next((b for b in before.builds if _is_remake(b, build)), None)
        if build in before.builds:
            return before
        if other is not None:
            notices.notify(
                f"{output.name} has the sha256 {build.sha256}, where {other.sha256} is recorded,"
                " made by the same versions: another processor may round otherwise, and both are"
                " kept in the lock; if it was this one, its memory may be faulty"
            )
        return replace(before, builds=(*before.builds, build))

    try:
        layers.update_entry(entry.name, with_build)
    except EdgesppoError as error:
        raise OutputError(
            f"the converted file is whole, but is not in the lock: {error}; to use it as it is:"
            f" edgesppo chat {shell_word(str(output))}"
        ) from error


def _is_remake(other: PinnedBuild, build: PinnedBuild) -> bool:
    """Whether both were made in the same way, by the same versions, on the same platform."""
    return replace(other, size=build.size, sha256=build.sha256) == build
