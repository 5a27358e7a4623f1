"""The model of an interactive chat: how it is loaded, in the background too, and freed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import EdgesppoError
from edgesppo.repl.background import BackgroundTask
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.loaded_model import LoadedModel

    Report = Callable[[str, float], None]  # called with a step of loading, and the share of it done


@dataclass
class ModelSource:
    """A model by name, and what loads it, or connects to the server that has it."""

    name: str
    open: Callable[[Report], LoadedModel]


class ModelSlot:
    """Holds at most one model, as there is memory for one only: close it before opening another.

    Attributes:
        source: Where the model that is loaded, or is to be, comes from.
        loaded: The loaded model, or None.
        loading: The task that loads it in the background; None before there is one.
        abandoned: Whether that task did not stop: it is still in native code.
    """

    def __init__(self, source: ModelSource) -> None:
        self.source = source
        self.loaded: LoadedModel | None = None
        self.loading: BackgroundTask | None = None
        self.abandoned = False

    @property
    def stage(self) -> str:
        """The current step of loading, as text."""
        reported = self.loading.stage if self.loading is not None else ""
        return reported or f"Loading {self.source.name}"

    def load_in_background(
        self,
        work: Callable[[Report], None],
        *,
        on_progress: Callable[[], None],
        on_done: Callable[[BaseException | None], None],
    ) -> None:
        """Run `work`, which opens the model, in a thread; see BackgroundTask for the callbacks."""
        with shielded():  # an interrupt must not lose the reference to the thread
            self.loading = BackgroundTask(work, on_progress=on_progress, on_done=on_done)

    def stop_loading(self) -> None:
        """End the loading in the background, if it is not done, or abandon it."""
        if self.loading is not None and not self.loading.done:
            with shielded(), suppress(EdgesppoError):
                self.abandoned = not self.loading.cancel()

    def open(self, source: ModelSource, report: Report) -> LoadedModel:
        """Load a model. Raises what loading it raises; then there is none."""
        self.loaded = source.open(report)
        self.source = source
        return self.loaded

    def close(self) -> None:
        """Free the model, if there is one."""
        loaded, self.loaded = self.loaded, None
        if loaded is not None:
            loaded.close()
