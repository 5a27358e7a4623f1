"""Owns the GGUF file that is made of a pinned checkpoint in the store: where, and its record.

Made from the checkpoint's folder where that is here, else from the hub, shard by shard. This file
may import edgesppo_convert, late.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgesppo._version import __version__
from edgesppo.errors import OutputError, UsageError
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import CHECKPOINT, PinnedBuild
from edgesppo.store import commit_lock, layout, pull
from edgesppo.store.converted import CONVERSION
from edgesppo.system.fs import FileSystem, cannot_write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.hub.download import Fetched
    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo_convert import Progress


def build(
    entry: PinnedModel,
    *,
    recipe: str = layout.RECIPE,
    progress: Callable[[Progress], None] | None = None,
    fetched: Fetched | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Path:
    """The GGUF file of a pinned checkpoint of the hub, made now if it is not there.

    It is recorded with its hash; raises OutputError where the same versions once made another.
    """
    if entry.kind != CHECKPOINT or entry.repository is None:
        raise UsageError(f"{entry.name} is no checkpoint of the hub: there is nothing to convert")
    files = FileSystem()
    with commit_lock.hold(str(entry.revision), on_wait, files):
        entry = layers.read().models.get(entry.name, entry)
        there = layout.find_build(entry, recipe)
        if there is not None:
            return there[0]
        return _make(entry, recipe, progress, fetched, files)


def _make(
    entry: PinnedModel,
    recipe: str,
    progress: Callable[[Progress], None] | None,
    fetched: Fetched | None,
    files: FileSystem,
) -> Path:
    from edgesppo.llama.library import LIBRARY_VERSION
    from edgesppo_convert import convert

    source: str | Path = layout.model_dir(entry)
    if not layout.is_there(entry):
        pull.check_listing(entry)
        source = f"{entry.repository}@{entry.revision}"
    output = layout.build_path(entry, recipe)
    layout.check_inside(output)
    result = convert(source, output, type=recipe, progress=progress, fetched=fetched, force=True)
    build = PinnedBuild(
        recipe=recipe,
        platform=layout.platform_name(),
        converter=f"edgesppo {__version__}, conversion {CONVERSION}",
        library=f"llama-cpp-python {LIBRARY_VERSION}",
        size=output.stat().st_size,
        sha256=result.sha256,
    )
    _compare(entry, build, output, files)
    layers.update_entry(entry.name, lambda before: _with(before or entry, build))
    return output


def _compare(entry: PinnedModel, build: PinnedBuild, output: Path, files: FileSystem) -> None:
    """The same converter and library make the same bytes on the same kind of machine."""
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
        f"{output.name} came out with the sha256 {build.sha256}, but {before.sha256} is recorded"
        f" for it in {layers.write_target()}; it is kept as {other.name}; remove the record if you"
        " trust it"
    )


def _with(entry: PinnedModel, build: PinnedBuild) -> PinnedModel:
    kept = (b for b in entry.builds if (b.recipe, b.platform) != (build.recipe, build.platform))
    return replace(entry, builds=(*kept, build))
