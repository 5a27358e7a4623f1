"""Run a model over samples, and sum the squares of its matrix products' inputs.

The runtime's evaluation callback shows the inputs (`llama/graph_observer.py`). Where the output
matrix is not wanted the graph is left after the last layer, so the head, a quarter of a small
model's work, is never computed. What is done is saved every half minute, and when it is
interrupted; the same call goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.engine.forward import ForwardPass
from edgesppo.errors import EdgesppoError, NativeError, OutputError
from edgesppo.evaluate.candidate import RunOptions, model_hash
from edgesppo.evaluate.corpus import dialogue_corpus, read_corpus
from edgesppo.evaluate.importance import ImportanceSums, PartialSums
from edgesppo.evaluate.self_dialogues import DEFAULT_DIALOGUES, SelfDialogues
from edgesppo.llama.graph_observer import GraphObserver
from edgesppo.llama.model import Model
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.evaluate.corpus import Corpus, Dialogues, Text
    from edgesppo.llama.graph_observer import Input

    Sums = NDArray[np.float32]

_OUTPUT = "token_embd.weight"  # the embedding is the output matrix, too
_SAVE_S = 30.0


@dataclass(frozen=True)
class CalibrationOptions:
    """What to calibrate on, and how.

    Without a text and dialogues the model answers `n_dialogues` shipped questions itself. `merge`
    names matrices whose sums are added. With `reuse`, a matrix that is there already and was asked
    for in the same way is left as it is.
    """

    text: Text | None = None
    dialogues: Dialogues | None = None
    n_dialogues: int = DEFAULT_DIALOGUES
    process_output: bool = False
    n_ctx: int | None = None
    chunks: int | None = None
    merge: Sequence[str | Path] = ()
    force: bool = False
    reuse: bool = False
    run: RunOptions = field(default_factory=RunOptions)
    # Called with the name of the stage, and how much of it is done, of how much.
    on_progress: Callable[[str, int, int], None] | None = None


class Collector:
    """One run over all samples, from the first that is not done yet."""

    def __init__(self, candidate: Candidate, target: Path, options: CalibrationOptions) -> None:
        self._candidate = candidate
        self._options = options
        self._report = options.on_progress or (lambda _stage, _done, _total: None)
        self._model_hash = model_hash(candidate)
        self.own = SelfDialogues(candidate, target, self._model_hash)
        self._corpus = self._read()
        self.partial = PartialSums(target, self._fingerprint())
        self._done = 0  # samples
        # Of the sample that is computed: weights, sums of squares of their inputs, tokens.
        self._squares: list[tuple[list[str], Sums, int]] = []

    @property
    def note(self) -> str | None:
        """What to say of the samples."""
        return self._corpus.note

    def remove_leftovers(self) -> None:
        """Remove what was kept to resume."""
        self.partial.remove()
        self.own.remove()

    def _read(self) -> Corpus:
        options = self._options
        own = None
        if options.text is None and options.dialogues is None:
            stage = f"{self._candidate.name} answers questions to be calibrated on"
            own = self.own.generate(
                options.n_dialogues,
                options.run,
                lambda done, total: self._report(stage, done, total),
            )
        with contextlib.closing(self._candidate.vocabulary()) as model:
            if own is not None:
                return dialogue_corpus(model, own, "its own dialogues")
            return read_corpus(
                model,
                options.text,
                options.dialogues,
                n_ctx=options.n_ctx,
                chunks=options.chunks,
            )

    def _fingerprint(self) -> str:
        ids = [sample.ids for sample in self._corpus.samples]
        parts = (self._model_hash, self._options.process_output, ids)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def collect(self) -> tuple[ImportanceSums, int]:
        """The sums over all samples, and how many of those an earlier run had done."""
        first, sums = self.partial.load()
        samples, self._done = self._corpus.samples, first
        saved_at = time.monotonic()
        try:
            with self._forward() as forward:
                for sample in samples[first:]:
                    self._add(forward, sample.ids, sums)
                    self._report(f"Calibrating {self._candidate.name}", self._done, len(samples))
                    if time.monotonic() - saved_at > _SAVE_S:
                        self.partial.save(self._done, sums)
                        saved_at = time.monotonic()
        except (KeyboardInterrupt, EdgesppoError) as error:
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
    def _forward(self) -> Iterator[ForwardPass]:
        n_ctx, candidate = self._corpus.n_ctx, self._candidate
        tuning = candidate.settings(n_ctx, fast=True)
        layers = candidate.summary.keys["gemma2.block_count"]
        last = None if self._options.process_output else f"blk.{layers - 1}.ffn_down.weight"
        observer = GraphObserver(self._wants, self._on_input, last)
        model = Model(
            candidate.path,
            gpu=self._options.run.gpu,
            repack=tuning.repack,
            summary=candidate.summary,
        )
        with contextlib.closing(model):
            forward = ForwardPass(model, tuning, n_ctx, observer=observer)
            with contextlib.closing(forward):
                yield forward

    def _wants(self, weight: str) -> bool:
        return weight.startswith("blk.") or (self._options.process_output and weight == _OUTPUT)

    def _on_input(self, found: Input) -> None:
        sums = np.einsum("ij,ij->j", found.rows, found.rows)
        # The list of weights still grows: others may have the same input.
        self._squares.append((found.weights, sums, len(found.rows)))

    def _add(self, forward: ForwardPass, ids: Sequence[int], sums: ImportanceSums) -> None:
        """Add one sample, completely or not at all."""
        self._squares.clear()
        # Logits are asked for, or the last layer would be computed for no token.
        for _ in forward.blocks(ids, 0):
            pass
        for weights, squares, _ in self._squares:
            if not np.isfinite(squares).all():
                raise NativeError(
                    f"the inputs of {weights[0]} are NaN or infinite in sample {self._done + 1} of "
                    f"{self._corpus.origin}: the weights before it are damaged, or overflow in "
                    "this type; convert the checkpoint again, or try --type bf16"
                )
        with shielded():  # a Ctrl-C must not leave half of a sample in the sums
            for weights, squares, count in self._squares:
                for weight in weights:
                    sums.add(weight, squares, count)
            self._done += 1
