"""Owns what goes into one batch: who is answered next, and how much of whose prompt is prefilled.

Fills the batch, decodes nothing; knows nothing of llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.draft import MAX_DRAFT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.batch import Batch
    from edgesppo.request import Request

# Prompt tokens in one step while answers are running: what each of them waits for at most.
_SLICE_BESIDE_ANSWERS = 64


@dataclass(frozen=True)
class Part:
    """A request's part of a batch: how far its tokens go, and the batch's entry of the last.

    Guesses of what comes behind them are the request's `draft`, and their last has that entry.
    """

    request: Request
    end: int
    entry: int


def fill(batch: Batch, running: Sequence[Request], n_ctx: int) -> list[Part]:
    """Fill the batch with what the running requests have to feed."""
    batch.clear()
    # Running answers first, so that a long prompt never makes them wait.
    answering = [request for request in running if request.is_answering]
    parts = [_add_answer(batch, request, len(answering), n_ctx) for request in answering]
    room = batch.capacity - len(batch)
    if answering:
        room = min(room, _SLICE_BESIDE_ANSWERS)
    for request in running:
        if not request.is_answering and room > 0:
            before = len(batch)
            parts.append(_add(batch, request, room))
            room -= len(batch) - before
    return parts


def _add_answer(batch: Batch, request: Request, n_answering: int, n_ctx: int) -> Part:
    """The latest token, and guesses of those behind it."""
    slot, n = request.slot, len(request.tokens)
    assert slot is not None, "only requests with a slot run"
    rows = min(MAX_DRAFT + 1, batch.capacity) - len(batch)
    left = request.params.max_tokens - request.n_generated
    most = min(rows - n_answering, left - 1, n_ctx - n - 1)
    request.draft = []
    if request.drafter is not None and most > 0:
        request.draft = request.drafter.propose(most, n_answering - 1)
    tokens = [request.tokens[-1], *request.draft]
    return Part(request, n, batch.add(slot.seq, n - 1, tokens, logits=len(tokens)))


def _add(batch: Batch, request: Request, room: int) -> Part:
    """As much of the prompt as there is room for."""
    slot = request.slot
    assert slot is not None, "only requests with a slot run"
    start = len(slot.ids)
    end = min(len(request.tokens), start + room)
    whole = end == len(request.tokens)
    request.draft = []
    return Part(request, end, batch.add(slot.seq, start, request.tokens[start:end], logits=whole))
