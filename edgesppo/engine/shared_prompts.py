"""Which prompts wait for one that is being computed, since they begin as it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.engine.kv_cache import common_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.engine.kv_cache import KVCache
    from edgesppo.engine.request import Request

# A prompt waits if it can reuse so many more tokens then, or half of its own. For fewer, the step
# that it waits for takes as long as what it saves.
_WORTH_WAITING = 16
# But not for the few with which every chat begins.
_LEAST_SHARED = 7


class SharedPrompts:
    """Where the prompts that are computed stop for others: there, all of their cells can be shared.

    A prompt waits only for one that runs and has not come to that place yet. So none waits for
    good, and none for one that was cancelled or put back into the queue. The scheduler clears
    `ends`, which has those places, before it asks again.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self.ends: dict[Request, int] = {}

    def n_left(self, request: Request) -> int:
        """How many tokens of a request's prompt are to be computed for now."""
        return self._end(request) - request.n_done

    def limit_ends(self, most: int) -> None:
        """Let no more prompts stop than there are others that can begin where they do."""
        while len(self.ends) > most:
            self.ends.popitem()

    def _end(self, request: Request) -> int:
        return self.ends.get(request, len(request.tokens))

    def holds_back(self, request: Request, running: Iterable[Request]) -> bool:
        """Whether a request waits, as one of the `running` computes what its prompt begins with."""
        tokens = request.tokens
        least = min(_WORTH_WAITING, max(_LEAST_SHARED, len(tokens) // 2))
        for other in running:
            if other.is_answering or other.salt != request.salt:
                continue
            n = min(common_prefix(other.tokens, tokens), len(tokens) - 1)
            if n <= max(other.n_done, least - 1):
                continue
            if n - self._cache.count_cached(tokens, request.salt) >= least:
                self.ends[other] = min(n, self._end(other))
                return True
        return False
