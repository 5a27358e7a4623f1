"""Collect an importance matrix: the input sums of all samples, here or on a Ray cluster.

What is done is saved every half minute, and when it is interrupted; the same call goes on from
there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import EdgesppoError, NativeError, OutputError
from edgesppo.evaluate.candidate import RunOptions, model_hash
from edgesppo.evaluate.cluster_sums import OnCluster, cluster_squares
from edgesppo.evaluate.importance import ImportanceSums, PartialSums
from edgesppo.evaluate.input_sums import InputSums
from edgesppo.system.signals import Terminated, shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.evaluate.corpus import Corpus
    from edgesppo.evaluate.input_sums import Squares
    from edgesppo.evaluate.source import Source

_SAVE_S = 30.0


@dataclass(frozen=True)
class CalibrationOptions:
    """What to calibrate on, and how.

    Without a source the model answers `n_dialogues` shipped questions itself, or so many as are
    usual. `merge` names
    matrices whose sums are added. With `ray`, the machines of a cluster compute. `request` is a
    hash of what was asked for, which the matrix records.
    """

    source: Source | None = None
    n_dialogues: int | None = None
    process_output: bool = False
    merge: Sequence[str | Path] = ()
    force: bool = False
    request: str | None = None
    run: RunOptions = field(default_factory=RunOptions)
    ray: OnCluster | None = None
    # Called with the name of the stage, and how much of it is done, of how much.
    on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None


class Collector:
    """One run over all samples of a corpus, from the first that is not done yet."""

    def __init__(
        self, candidate: Candidate, corpus: Corpus, target: Path, options: CalibrationOptions
    ) -> None:
        self._candidate = candidate
        self._corpus = corpus
        self._options = options
        self._report = options.on_progress
        self._model_hash = model_hash(candidate)
        self.partial = PartialSums(target, self._fingerprint())
        self._done = 0  # samples

    def _fingerprint(self) -> str:
        ids = [sample.ids for sample in self._corpus.samples]
        parts = (self._model_hash, self._options.process_output, ids)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def collect(self) -> tuple[ImportanceSums, int]:
        """The sums over all samples, and how many of those an earlier run had done."""
        first, sums = self.partial.load()
        n_samples, self._done = len(self._corpus.samples), first
        saved_at = time.monotonic()
        try:
            with self._squares(first) as found:
                for squares in found:
                    self._add(squares, sums)
                    self._report(f"Calibrating {self._candidate.name}", self._done, n_samples)
                    if time.monotonic() - saved_at > _SAVE_S:
                        self.partial.save(self._done, sums)
                        saved_at = time.monotonic()
        except (KeyboardInterrupt, Terminated, EdgesppoError) as error:
            self._keep(error, sums)
            raise
        sums.datasets = [Path(self._corpus.origin).name]
        return sums, first

    def _keep(self, error: BaseException, sums: ImportanceSums) -> None:
        """Save what is done after an interruption, and say so in the error."""
        if not self._done or isinstance(error, NativeError):
            return
        with contextlib.suppress(OutputError):
            self.partial.save(self._done, sums)
            kept = (
                f"{self._done} of {len(self._corpus.samples)} samples are kept in "
                f"{self.partial.path}: run the same command again to continue"
            )
            error.args = (f"{'; '.join((str(error) or 'stopped', kept))}",)

    @contextlib.contextmanager
    def _squares(self, first: int) -> Iterator[Iterator[list[Squares]]]:
        """The input sums of each sample that is not done yet, in order."""
        corpus, options = self._corpus, self._options
        samples = [
            (sample.ids, f"sample {n} of {corpus.origin}")
            for n, sample in enumerate(corpus.samples[first:], first + 1)
        ]
        how: dict[str, Any] = {"process_output": options.process_output}
        if options.ray is not None:
            with cluster_squares(
                options.ray, self._model_hash, samples, run=options.run, **how
            ) as found:
                yield found
            return
        with InputSums(self._candidate, corpus.n_ctx, **how) as inputs:
            yield (inputs.of(ids, name) for ids, name in samples)

    def _add(self, squares: list[Squares], sums: ImportanceSums) -> None:
        """Add one sample, completely or not at all."""
        with shielded():  # a Ctrl-C must not leave half of a sample in the sums
            for weights, values, count in squares:
                for weight in weights:
                    sums.add(weight, values, count)
            self._done += 1
