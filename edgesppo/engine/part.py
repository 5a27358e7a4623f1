"""What one request has in a batch: the latest token of an answer and its draft, or some prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.planning.run_config import MAX_DRAFT

if TYPE_CHECKING:
    from edgesppo.engine.request import Request
    from edgesppo.llama.batch import Batch


@dataclass(frozen=True)
class Part:
    """A request's part of a batch: its tokens up to `end`, then its `draft`, if any.

    `entry` is the batch's entry of the last of them.
    """

    request: Request
    end: int
    entry: int


def add_answer(batch: Batch, request: Request, n_answering: int) -> Part:
    """Add a request's latest token and the draft tokens after it."""
    slot, n = request.slot, len(request.tokens)
    assert slot is not None, "only requests with a slot run"
    request.draft = []
    if request.drafter is not None:
        rows = min(MAX_DRAFT + 1, batch.capacity) - len(batch)
        n_max = min(rows - n_answering, request.limit - n - 1)
        if n_max > 0:
            request.draft = request.drafter.propose(n_max, n_answering - 1)
    tokens = [request.tokens[-1], *request.draft]
    return Part(request, n, batch.add(slot.seq, n - 1, tokens, logits=len(tokens)))


def add_prompt(batch: Batch, request: Request, room: int) -> Part:
    """Add the next `room` tokens of a request's prompt, or all that are left of it."""
    slot = request.slot
    assert slot is not None, "only requests with a slot run"
    start = len(slot.ids)
    end = min(len(request.tokens), start + room)
    is_last = end == len(request.tokens)
    request.draft = []
    entry = batch.add(slot.seq, start, request.tokens[start:end], logits=is_last)
    return Part(request, end, entry)
