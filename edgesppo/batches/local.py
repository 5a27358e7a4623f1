"""`LocalModel`: a model in this process that answers the rows of a batch."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from edgesppo.batches.runner import RowRunner
from edgesppo.errors import UsageError
from edgesppo.interior import interior

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from edgesppo.batches.input import Place
    from edgesppo.batches.result import BatchResult
    from edgesppo.batches.work import Counts, Report, Work
    from edgesppo.loaded_model import LoadedModel


class LocalModel:
    """A loaded model that answers `parallel` rows at once, by default as many as it can.

    Raises UsageError where it was loaded for fewer.
    """

    def __init__(self, loaded: LoadedModel, parallel: int | None = None) -> None:
        n_seqs = interior(loaded).engine.n_seqs
        if parallel is not None and parallel > n_seqs:
            raise UsageError(
                f"parallel is {parallel}, but the model was loaded for {n_seqs} at once; use "
                f"load(..., n_seqs={parallel})"
            )
        self.name = loaded.name
        self.fingerprint = interior(loaded).identity.mark.fingerprint
        self.defaults = interior(loaded).defaults
        self.loaded = loaded
        self._parallel = parallel or n_seqs

    def answer(
        self, work: Work, places: Iterable[Place], counts: Counts, report: Report | None
    ) -> Generator[BatchResult, None, None]:
        """The result of each row, as it is done. Leaving the iterator stops all answers."""
        runner = RowRunner(self.loaded, work, counts, parallel=self._parallel, report=report)
        runner.add(places)
        with contextlib.closing(runner.run()) as results:
            yield from results
