"""Owns what a decoded batch gives a request: its next token, and those that it had guessed.

Each row is sampled from the model's own distribution, and guesses count as far as they equal what
was drawn: so they change no answer. Token ids only; knows nothing of batches or caches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.llama import logprobs

if TYPE_CHECKING:
    from edgesppo.engine.request import Request
    from edgesppo.llama.context import Context
    from edgesppo.llama.model import Model


def accept(context: Context, request: Request, entry: int, model: Model, n_ctx: int) -> list[int]:
    """Sample the batch's rows of a request, up to `entry`, as far as its guesses were right.

    Gives what came; the request has it, too, but for an end token.
    """
    came: list[int] = []
    draft = request.draft
    for row, guess in enumerate([*draft, None], entry - len(draft)):
        token = context.sample(request.chain, row)
        came.append(token)
        if request.is_ended_by(token, model):
            break
        if request.params.logprobs is not None:
            found = logprobs.of_row(context.row(row), token, request.params.logprobs)
            request.logprobs[request.n_generated :] = [found]
        request.tokens.append(token)
        if token != guess or request.is_full(n_ctx):
            break
    return came
