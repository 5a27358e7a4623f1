"""How much a model's predictions suffer when one of its matrices is quantised, or all are.

The model is in memory once, unquantised; matrices are overwritten there by their quantised selves
and put back, so no file is written for a trial. The divergence is that from the model's own
unquantised logits, over the same samples.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from edgesppo.engine.forward import ForwardPass
from edgesppo.errors import OutOfMemory
from edgesppo.evaluate import logits
from edgesppo.evaluate.quantised import Matrix, quantised, restored
from edgesppo.llama.weight_writer import WeightWriter
from edgesppo.planning.memory_plan import PROGRAM_BYTES
from edgesppo.system.hardware import available_memory
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy as np
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.evaluate.corpus import Sample

    Importance = Mapping[str, NDArray[np.float32]]

_LOGITS_BYTES = 512 << 20  # of the reference, of all samples
_MOST_TOKENS = 4096  # more make it slower, and the order of the matrices hardly more certain


class TrialModel:
    """A model whose matrices can be quantised on trial; leaving the block frees it.

    `importance` has the importance of the columns of matrices by name. Raises OutOfMemory where
    the unquantised model does not fit into memory.
    """

    def __init__(
        self, candidate: Candidate, samples: Sequence[Sample], importance: Importance
    ) -> None:
        self._importance = importance
        self._name = candidate.name
        n_ctx = max(16, *(len(sample.ids) for sample in samples))
        _require_memory(candidate, n_ctx)
        self._samples = samples
        self._writer = WeightWriter()
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            weights = candidate.weights(repack=False, gpu="off", mmap=False)
            undo.callback(weights.close)
            tuning = candidate.settings(n_ctx, fast=True)
            self._forward = ForwardPass(
                weights, candidate.summary, tuning, n_ctx, observer=self._writer
            )
            undo.callback(self._forward.close)
            self._reference = [self._logits(sample) for sample in samples]
            self._stack = undo.pop_all()

    def __enter__(self) -> TrialModel:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def divergence(
        self, kinds: Mapping[Matrix, GGMLQuantizationType], weighted: Collection[str]
    ) -> float:
        """The mean divergence with these matrices quantised, over all samples.

        Those named in `weighted` are quantised with the importance of their columns.
        """
        try:
            for matrix, kind in kinds.items():
                importance = self._importance[matrix.name] if matrix.name in weighted else None
                self._write(matrix, kind, importance)
            return self._measure()
        finally:
            for matrix in kinds:
                self._write(matrix, None, None)

    def _write(
        self,
        matrix: Matrix,
        kind: GGMLQuantizationType | None,
        importance: NDArray[np.float32] | None,
    ) -> None:
        """Overwrite a matrix by its quantised self, in the model's own type; None restores it."""
        row_bytes = matrix.entry.n_bytes // matrix.rows
        for first, values in matrix.chunks():
            if kind is not None:
                values = restored(quantised(values, kind, importance), kind)
            stored = quantised(values, matrix.kind, None)
            self._writer.write(matrix.name, stored, first * row_bytes)

    def _measure(self) -> float:
        total, n = 0.0, 0
        for sample, reference in zip(self._samples, self._reference, strict=True):
            for base, (position, rows) in zip(reference, self._blocks(sample), strict=True):
                targets = sample.ids[position + 1 : position + 1 + len(rows)]
                who, n_threads = (self._name, self._name), self._forward.n_threads
                found = logits.compare(base, rows, targets, who, n_threads)
                total, n = total + float(found.kld.sum()), n + found.kld.size
        return total / n

    def _blocks(self, sample: Sample) -> Iterator[tuple[int, logits.Floats]]:
        for position, block in self._forward.blocks(sample.ids[:-1], sample.first):
            yield position, logits.as_rows(block, self._forward.n_vocab)

    def _logits(self, sample: Sample) -> list[logits.Floats]:
        return [rows.copy() for _, rows in self._blocks(sample)]


def fitting(samples: Sequence[Sample], n_vocab: int) -> list[Sample]:
    """The first samples whose reference logits fit into the memory for them; at least one."""
    found: list[Sample] = []
    n = 0
    for sample in samples:
        n += sample.n_scored
        if found and (4 * n * n_vocab > _LOGITS_BYTES or n > _MOST_TOKENS):
            break
        found.append(sample)
    return found


def split(samples: Sequence[Sample], n_vocab: int) -> tuple[list[Sample], list[Sample]]:
    """The samples to measure single matrices on, and those that are held out for the whole.

    They are the beginnings of the two halves; of a single sample nothing can be held out.
    """
    half = len(samples) // 2
    if not half:
        return fitting(samples, n_vocab), []
    return fitting(samples[:half], n_vocab), fitting(samples[half:], n_vocab)


def _require_memory(candidate: Candidate, n_ctx: int) -> None:
    free = available_memory()
    needed = candidate.needs(n_ctx) + _LOGITS_BYTES + PROGRAM_BYTES
    if free is not None and needed > free:
        raise OutOfMemory(
            f"{candidate.path}: measuring which tensors matter needs {megabytes(needed, 0)} of "
            f"memory, {megabytes(free, 0)} are free; close other programs, or choose the types "
            "yourself with --tensor-type"
        )
