"""`Planners`: a few threads that tokenise prompts, make grammars of schemas, build samplers."""

from __future__ import annotations

import collections
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from edgesppo.server.errors import overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

PLANNERS = 4
_OF_ONE_KEY = 2  # where there are several
T = TypeVar("T")


class Planners:
    """Threads for at most `most()` requests at a time; the keys share them, if there are `several`.

    Used from the event loop alone.
    """

    def __init__(self, most: Callable[[], int], *, several: bool) -> None:
        self._most = most
        self._several = several
        self._n_planned: collections.Counter[str] = collections.Counter()
        self._limits: dict[str, anyio.CapacityLimiter] = {}

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on one of the threads, so that the event loop goes on."""
        return await anyio.to_thread.run_sync(function, *args, limiter=self._threads)

    async def run_for(self, owner: str, function: Callable[..., T], *args: Any) -> T:
        """As `run`, for an API key. Raises a 429 if too many wait for this already."""
        n_planned = self._n_planned.total()
        if n_planned + self._several * self._n_planned[owner] >= self._most():
            raise overloaded(n_planned)
        self._n_planned[owner] += 1
        try:
            async with self._limit_of(owner):
                return await self.run(function, *args)
        finally:
            self._n_planned[owner] -= 1

    @functools.cached_property
    def _threads(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(PLANNERS)

    def _limit_of(self, owner: str) -> anyio.CapacityLimiter:
        if owner not in self._limits:
            self._limits[owner] = anyio.CapacityLimiter(_OF_ONE_KEY if self._several else PLANNERS)
        return self._limits[owner]
