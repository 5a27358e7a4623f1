"""`MachineWorker`: what runs on each machine of a Ray cluster. It loads the model there, once.

It is an ordinary class, which Ray makes an actor of; nothing here imports Ray.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.api import load
from edgesppo.batches.runner import RowRunner
from edgesppo.batches.work import Counts, Work
from edgesppo.interior import interior
from edgesppo.remote.worker import Machine
from edgesppo.store import verify

if TYPE_CHECKING:
    from collections.abc import Generator

    from edgesppo.batches.input import Key, Place
    from edgesppo.batches.recipe import Recipe
    from edgesppo.batches.request import Label
    from edgesppo.batches.result import BatchResult
    from edgesppo.sampling.params import SamplingParams

# Results are handed over when the first is there and so many seconds have passed.
_TURN_S = 0.25


@dataclass(frozen=True)
class RowMachine(Machine):
    """A machine and its model, with the sampling parameters that the model has by default."""

    defaults: SamplingParams


@dataclass(frozen=True)
class SentRow:
    """A row on its way to a machine."""

    place: Place
    label: Label
    data: bytes


class _SentRows:
    """The bytes of the rows that were sent, until they are read."""

    def __init__(self) -> None:
        self.data: dict[Key, bytes] = {}

    def read(self, place: Place) -> bytes:
        """The bytes of a row, once."""
        return self.data.pop(place.key)


class MachineWorker:
    """Answers rows with the model that this machine has under a name, or at a path.

    Raises what `load` raises, and BadModelFile where a file is not what the lock says.
    """

    def __init__(self, model: str, parallel: int, loading: dict[str, Any]) -> None:
        verify.require_sound(model)
        self._loaded = load(model, n_seqs=parallel, **loading)
        self._parallel = parallel
        self._rows = _SentRows()
        self._labels: dict[int, Label] = {}
        self._open: Counter[int] = Counter()  # answers to each row that are still to come
        self._runner: RowRunner | None = None
        self._results: Generator[BatchResult, None, None] | None = None

    def describe(self) -> RowMachine:
        """This machine and its model."""
        mark = interior(self._loaded).identity.mark
        host = socket.gethostname()
        return RowMachine(host, mark.name, mark.fingerprint, interior(self._loaded).defaults)

    def begin(self, recipe: Recipe) -> None:
        """Take the recipe of the rows that will come."""
        if self._results is not None:
            self._results.close()  # of a batch that was abandoned
        self._results = None
        self._labels.clear()
        self._open.clear()
        work = Work(self._rows, self._labels, recipe)
        self._runner = RowRunner(self._loaded, work, Counts(0), parallel=self._parallel)

    def turn(self, rows: list[SentRow]) -> list[tuple[Key, BatchResult]]:
        """Take more rows, and return what is done by now: at least one result, with its key."""
        assert self._runner is not None, "begin() comes first"
        for row in rows:
            self._rows.data[row.place.key] = row.data
            self._labels[row.place.row] = row.label
            self._open[row.place.row] += 1
        self._runner.add(row.place for row in rows)
        if self._results is None:
            self._results = self._runner.run()
        found: list[tuple[Key, BatchResult]] = []
        started = time.monotonic()
        for result in self._results:
            found.append((result.key, result))
            self._close(result.key[0])
            if time.monotonic() - started > _TURN_S:
                return found
        self._results = None  # nothing is left; the next rows begin anew
        return found

    def _close(self, row: int) -> None:
        """Forget a row once all that was asked of it is answered: there may be millions."""
        self._open[row] -= 1
        if not self._open[row]:
            del self._open[row], self._labels[row]
