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


def accept(context: Context, request: Request, entry: int) -> tuple[list[int], str | None]:
    """Sample the batch's rows of a request, up to `entry`, as far as its guesses were right.

    Gives what came, and why the answer is over with it: "stop", "length" or None. What came is
    among the request's tokens, too, but for an end token.
    """
    came: list[int] = []
    draft, n_logprobs = request.draft, request.params.logprobs
    for row, guess in enumerate([*draft, None], entry - len(draft)):
        token = context.sample(request.chain, row)
        came.append(token)
        if token in request.end_tokens:
            return came, "stop"
        if n_logprobs is not None:
            found = logprobs.of_row(context.row(row), token, n_logprobs)
            request.logprobs[request.n_generated :] = [found]
        request.tokens.append(token)
        if request.is_full:
            return came, "length"
        if token != guess:
            break
    return came, None
