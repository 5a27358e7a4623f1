"""Choose and load the model that a command runs, with progress of conversion and tuning."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.output import say, say_notices
from edgesppo.store import locate, user_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgesppo.loaded_model import LoadedModel

_EXPLICIT = "edgesppo.asked_for"
REAL_MODEL_HINT = (
    f"Using the tiny demo model. For the real one: edgesppo pull {locate.REAL} --convert"
)


def choose_model(model: str | None) -> locate.Found:
    """The model that the user named, else the default one (locate.default), and a note of that."""
    if model is not None:
        found = locate.find(model)
        click.get_current_context().meta[_EXPLICIT] = found
        return found
    found = locate.default()
    is_demo = found == locate.demo()
    say(REAL_MODEL_HINT if is_demo else f"Using {found.name} ({found.path})")
    return found


def gguf_path(found: locate.Found) -> Path:
    """The model's GGUF file; converts a checkpoint first, with a progress bar."""
    from edgesppo.store.converted import ensure_converted
    from edgesppo.terminal.progress import conversion_progress

    if not found.is_checkpoint:
        return found.path
    with conversion_progress(_converting(found)) as report:
        return ensure_converted(found, report)


@contextlib.contextmanager
def open_model(found: locate.Found, loading: dict[str, Any]) -> Iterator[LoadedModel]:
    """Load a model with progress bars, and close it afterwards; remembers it if it was named."""
    with open_with_meters(loading, found) as loaded:
        if is_explicit(found):
            user_state.set_last(locate.argument_for(found))
        say_notices()
        yield loaded


def is_explicit(found: locate.Found) -> bool:
    """Whether the user named this model on the command line."""
    return click.get_current_context().meta.get(_EXPLICIT) is found


def open_with_meters(
    loading: dict[str, Any], found: locate.Found, _report: object = None
) -> LoadedModel:
    """Load a model, converting a checkpoint first, with progress bars on standard error."""
    from edgesppo.api import load
    from edgesppo.terminal.progress import conversion_progress, tuning_progress

    with conversion_progress(_converting(found)) as on_convert, tuning_progress() as on_tune:
        return load(found, on_convert=on_convert, on_tune=on_tune, **loading)


def open_reporting(
    loading: dict[str, Any], found: locate.Found, report: Callable[[str, float], None]
) -> LoadedModel:
    """Load a model, converting a checkpoint first; calls `report` with a step and its fraction."""
    from edgesppo.api import load

    title = _converting(found)
    return load(
        found,
        on_convert=lambda p: report(title, p.done_bytes / p.total_bytes),
        on_load=lambda share: report(f"Loading {found.name}", share),
        on_tune=lambda share: report("Finding the fastest settings for this machine (once)", share),
        **loading,
    )


def _converting(found: locate.Found) -> str:
    return f"Converting {found.name} to Q4_K_M (once)"


def known_everywhere(model: str) -> str:
    """A model's name, or the whole path of one: other machines have another current folder."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.exists() else model
