"""`Answers`: the answers to one request, as they come or whole, until its client goes away."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from starlette.responses import JSONResponse

from edgesppo.server.errors import ApiError, from_exception, took_too_long

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from fastapi import Request

    from edgesppo.chat.result import Chunk, Result
    from edgesppo.server.job import Job

# A stream whose answer has to wait longer than this for a sequence begins without it.
_BEGIN_S = 5.0


class Answers:
    """The answers to one request. `close` ends those that are still computed."""

    def __init__(
        self,
        jobs: list[Job],
        n: int,
        request: Request,
        total_s: float,
        on_close: Callable[[Answers], None],
    ) -> None:
        """`n` are to each prompt. They have `total_s` seconds; `on_close` is told once."""
        self.jobs = jobs
        self.n = n
        self.end_reason = "disconnected"  # of what is not whole when it is closed
        self._request = request
        self._total_s = total_s
        self._deadline = anyio.current_time() + total_s
        self._on_close = on_close
        self._closed = False

    async def begun(self) -> None:
        """Wait until the first answer has begun, or for some time.

        Raises an ApiError if it cannot begin, also if the client goes away.
        """
        try:
            await self._unless_gone(self.jobs[0].begun(_BEGIN_S))
        except Exception as error:
            raise from_exception(error) from error

    def close(self) -> None:
        """End what is still computed."""
        if not self._closed:
            self._closed = True
            self._on_close(self)
            self._request.state.tokens = self.n_tokens

    @property
    def unfinished(self) -> list[Job]:
        """Those that are not whole."""
        return [job for job in self.jobs if not job.over]

    @property
    def n_tokens(self) -> tuple[int, int]:
        """The tokens of the prompts whose answers have begun, and those of the answers."""
        groups = (self.jobs[i : i + self.n] for i in range(0, len(self.jobs), self.n))
        asked = sum(
            len(group[0].prompt)
            for group in groups
            if any(job.admitted_at is not None for job in group)
        )
        return asked, sum(
            job.n_delivered if job.usage is None else job.usage.completion_tokens
            for job in self.jobs
        )

    async def stream(self) -> AsyncIterator[tuple[int, Chunk]]:
        """The chunks of all answers as they come, each with its answer's number.

        Raises an ApiError if one fails, or if the request's time is over.
        """
        queue: asyncio.Queue[tuple[int, Chunk | Exception | None]] = asyncio.Queue()

        async def read(number: int, job: Job) -> None:
            try:
                async for chunk in job.stream():
                    queue.put_nowait((number, chunk))
                queue.put_nowait((number, None))
            except Exception as error:
                queue.put_nowait((number, error))

        readers = [asyncio.ensure_future(read(n, job)) for n, job in enumerate(self.jobs)]
        left = len(readers)
        try:
            while left:
                number, item = await self._next(queue)
                if isinstance(item, Exception):
                    self.end_reason = "failed"
                    raise from_exception(item) from item
                if item is None:
                    left -= 1
                else:
                    yield number, item
        finally:
            for reader in readers:
                reader.cancel()

    async def _next(self, queue: asyncio.Queue[Any]) -> Any:
        # The time first: a client that takes what is there in sips holds up a server that drains.
        left = self._deadline - anyio.current_time()
        if left > 0 and not queue.empty():
            return queue.get_nowait()
        with contextlib.suppress(asyncio.TimeoutError):
            if left > 0:
                return await asyncio.wait_for(queue.get(), left)
        self.end_reason = "timeout"
        raise took_too_long(self._total_s)

    async def whole(self, make: Callable[[list[Result]], Any]) -> JSONResponse:
        """The response with what `make` makes of all answers, once they are whole.

        It is made on another thread, as a large one takes seconds. Raises an ApiError, also if the
        client goes away.
        """
        try:
            await self._unless_gone(self._read_all())
        finally:
            self.close()

        def respond() -> JSONResponse:
            return JSONResponse(make([job.result() for job in self.jobs]))

        return await anyio.to_thread.run_sync(respond)

    async def _unless_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work. Raises an ApiError as soon as the client goes away."""
        gone = asyncio.ensure_future(_disconnected(self._request))
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait([gone, working], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ApiError(499, "the client went away", code="disconnected")
            working.result()
        finally:
            gone.cancel()
            working.cancel()

    async def _read_all(self) -> None:
        async for _ in self.stream():
            pass


async def _disconnected(request: Request) -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
