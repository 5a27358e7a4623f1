"""`Job`: one answer on its way from the worker thread to the request that waits for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.chat.result import Chunk
from edgesppo.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from edgesppo.chat.generation import Generation
    from edgesppo.chat.result import Result, Usage
    from edgesppo.sampling.params import SamplingParams

# What the worker delivers: a chunk of the answer, or why there is none.
News = Chunk | Exception


@dataclass(eq=False)
class Job:
    """One answer: its prompt, and what has been computed of it.

    It has a `generation` before it is submitted; from then on the worker alone touches that and
    `chunks`. `arrived_at` is when its request came. `deliver` and the iteration run on the event
    loop. `owner` is the name of the API key; the KV cache is shared only within it.
    """

    prompt: list[int]
    params: SamplingParams
    grammar: str | None = None
    owner: str = ""
    arrived_at: float = field(default_factory=time.perf_counter)
    last_token_at: float | None = None
    usage: Usage | None = None  # once it is over
    cancelled: bool = False
    over: bool = False  # the worker is done with it
    generation: Generation | None = None
    chunks: Iterator[Chunk] | None = None
    n_delivered: int = 0
    ids: list[int] = field(default_factory=list)  # of what was read of the stream
    _news: list[News] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def admitted_at(self) -> float | None:
        """When it got a sequence; None while it waits."""
        return None if self.generation is None else self.generation.request.admitted_at

    def deliver(self, news: list[News]) -> None:
        """Hand over what the worker computed; an empty list says that the answer has begun."""
        self._news += news
        self.n_delivered += len(news)
        self._arrived.set()

    async def begun(self, timeout: float) -> None:
        """Wait until the answer has a sequence, has failed, or `timeout` seconds have passed.

        Raises what ended an answer before it began.
        """
        try:
            await asyncio.wait_for(self._arrived.wait(), timeout)
        except asyncio.TimeoutError:
            return
        first = self._news[0] if self._news else None
        if isinstance(first, Exception):
            raise first
        if first is not None and first.finish_reason == "cancelled":
            raise Cancelled("the server stopped before the answer began")

    async def stream(self) -> AsyncIterator[Chunk]:
        """The chunks of the answer as they come; the last has the finish reason."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            news, self._news = self._news, []
            for item in news:
                if isinstance(item, Exception):
                    raise item
                self.ids += item.ids
                yield item
                if item.finish_reason is not None:
                    return

    def result(self) -> Result:
        """The whole answer, once it has ended."""
        assert self.generation is not None, "it has begun"
        return self.generation.result()
