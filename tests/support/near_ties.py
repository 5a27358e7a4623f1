"""Tells a choice between two tokens that are as good as equal from a wrong one.

The same tokens give slightly other logits in batches of other sizes, as other kernels compute
them: by up to 0.2 on the demo as Q4_K_M, whose logits have a standard deviation of 2, and by up
to 0.001 in F32. Two tokens can change places if they lie no farther apart than twice that. So
where two answers part, the logits behind their common beginning are computed once more: both
tokens must be that close to the best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.planning.run_config import ContextParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.model import Model

# Twice the rounding, and some room.
MARGIN = {"q4_k_m": 0.5, "f32": 0.005}


def logits(model: Model, ids: Sequence[int], slices: int = 512, cache: str = "f16") -> list[float]:
    """The logits behind `ids`, in a fresh context, decoded `slices` tokens at a time."""
    context = Context(model.weights, ContextParams(n_ctx=512, n_threads=2, cache_type=cache))
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
    """Whether two different answers to a prompt part where both tokens were nearly the best.

    An answer that came to its end ends with the end token here.
    """
    n = next(n for n in range(len(one)) if list(one[: n + 1]) != list(other[: n + 1]))
    cache = "f32" if kind == "f32" else "f16"
    found = logits(model, [*prompt, *one[:n]], cache=cache)
    worse = min(found[one[n]], found[other[n]])
    return max(found) - worse <= MARGIN[kind]
