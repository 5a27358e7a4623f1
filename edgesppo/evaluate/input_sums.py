"""`InputSums`: run a model over samples, and sum the squares of its matrix products' inputs.

The runtime's evaluation callback shows the inputs (`llama/graph_observer.py`). Where the output
matrix is not wanted the graph is left after the last layer, so the head, a quarter of a small
model's work, is never computed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from edgesppo.engine.forward import ForwardPass
from edgesppo.errors import NativeError
from edgesppo.llama.graph_observer import GraphObserver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.llama.graph_observer import Input

    # Weights that have the same inputs, the sums of the squares of those, and their tokens.
    Squares = tuple[list[str], NDArray[np.float32], int]

_ROWS = 128  # at a time; with fewer, more time goes into calls of the observer
_OUTPUT = "token_embd.weight"  # the embedding is the output matrix, too


class InputSums:
    """A model in memory, for sequences of up to `n_ctx` tokens; a context manager."""

    def __init__(self, candidate: Candidate, n_ctx: int, *, process_output: bool) -> None:
        self._process_output = process_output
        self._squares: list[Squares] = []  # of the sample that is computed
        tuning = candidate.settings(n_ctx, fast=True)
        layers = candidate.summary.keys["gemma2.block_count"]
        last = None if process_output else f"blk.{layers - 1}.ffn_down.weight"
        observer = GraphObserver(self._wants, self._on_input, last)
        with contextlib.ExitStack() as stack:
            weights = candidate.weights(repack=tuning.repack)
            stack.enter_context(contextlib.closing(weights))
            self._forward = ForwardPass(
                weights, candidate.summary, tuning, n_ctx, n_rows=_ROWS, observer=observer
            )
            stack.enter_context(contextlib.closing(self._forward))
            self._stack = stack.pop_all()

    def __enter__(self) -> InputSums:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, ids: Sequence[int], name: str) -> list[Squares]:
        """The sums of one sample, whose name is for messages. Raises NativeError for NaN."""
        self._squares = []
        # Logits are asked for, or the last layer would be computed for no token.
        for _ in self._forward.blocks(ids, 0):
            pass
        for weights, squares, _ in self._squares:
            if not np.isfinite(squares).all():
                raise NativeError(
                    f"the inputs of {weights[0]} are NaN or infinite in {name}: the weights before "
                    "it are damaged, or overflow in this type; convert the checkpoint again, or "
                    "try --type bf16"
                )
        return self._squares

    def _wants(self, weight: str) -> bool:
        return weight.startswith("blk.") or (self._process_output and weight == _OUTPUT)

    def _on_input(self, found: Input) -> None:
        sums = np.einsum("ij,ij->j", found.rows, found.rows)
        # The list of weights still grows: others may have the same input.
        self._squares.append((found.weights, sums, len(found.rows)))
