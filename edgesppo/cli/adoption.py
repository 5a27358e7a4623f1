"""What `import` and `import --scan` share: register a model with progress, and tell of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from edgesppo.cli.output import say
from edgesppo.gguf import gemma2
from edgesppo.lockfile import layers
from edgesppo.store import locate
from edgesppo.system.units import size
from edgesppo.terminal.progress import Meter

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel


def adopt(path: Path, name: str | None, description: str | None = None) -> PinnedModel:
    """Register a model, with a progress bar for hashing it."""
    from edgesppo.store.register import register

    with contextlib.closing(Meter(f"Hashing {path.name}")) as meter:
        return register(path, name, meter.update, description)


def notes_of(entry: PinnedModel) -> list[str]:
    """What the model's file has that is without effect here."""
    found = locate.of_entry(entry)
    return [] if found.is_checkpoint else gemma2.notes(gemma2.load_summary(found.path))


def entry_figures(entry: PinnedModel) -> dict[str, Any]:
    """A new entry as values for JSON."""
    files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in entry.files]
    figures = {"name": entry.name, "kind": entry.kind, "location": entry.location}
    return {**figures, "bytes": entry.size, "files": files}


def report(entry: PinnedModel, notes: list[str]) -> None:
    """Tell what was recorded, and the notes."""
    say(
        f"{entry.name}: {size(entry.size)} in {entry.location}, recorded in {layers.write_target()}"
    )
    for note in notes:
        say(f"Note: {note}")
