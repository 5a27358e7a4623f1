"""Decides whether two answers differ because of a near tie between two tokens, or by a bug.

The logits of the same tokens vary with the batch size, which selects other kernels: by up to 0.2
on the demo as Q4_K_M, whose logits have a standard deviation of 2, and by up to 0.001 in F32. Two
tokens can swap places if their logits differ by at most twice that. So at the first difference
between two answers, the logits after their common prefix are computed again: both tokens must be
that close to the best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.planning.run_config import ContextParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.model import Model

# The largest allowed difference of logits: twice the variation, and some margin.
MARGIN = {"q4_k_m": 0.5, "f32": 0.005}


def logits(model: Model, ids: Sequence[int], slices: int = 512, cache: str = "f16") -> list[float]:
    """The logits after `ids`, computed in a new context, `slices` tokens at a time."""
    context = Context(model.weights, ContextParams(n_ctx=512, n_threads=1, cache_type=cache))
    try:
        batch = Batch(512)
        entry = 0
        for start in range(0, len(ids), slices):
            batch.clear()
            entry = batch.add(0, start, ids[start : start + slices], logits=True)
            context.decode(batch)
        return context.logits(entry)
    finally:
        context.close()


def is_near_tie(
    model: Model, prompt: Sequence[int], one: Sequence[int], other: Sequence[int], kind: str
) -> bool:
    """Whether two different answers diverge at a near tie.

    A complete answer must include its end token.
    """
    n = next(n for n in range(len(one)) if list(one[: n + 1]) != list(other[: n + 1]))
    cache = "f32" if kind == "f32" else "f16"
    found = logits(model, [*prompt, *one[:n]], cache=cache)
    worse = min(found[one[n]], found[other[n]])
    return max(found) - worse <= MARGIN[kind]
