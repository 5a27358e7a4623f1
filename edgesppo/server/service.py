"""`Service`: what the handlers of all dialects share, from a checked request to its answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from edgesppo.errors import EdgesppoError
from edgesppo.server.budgets import Budgets
from edgesppo.server.errors import ApiError, bad_request, from_exception, took_too_long
from edgesppo.server.job import Job
from edgesppo.server.metrics import Metrics
from edgesppo.server.snapshots import Snapshots
from edgesppo.server.worker import OK, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from fastapi import Request

    from edgesppo.chat.result import Chunk, Result
    from edgesppo.loaded_model import LoadedModel
    from edgesppo.sampling.params import SamplingParams
    from edgesppo.server.api_keys import ApiKey
    from edgesppo.server.backend import Backend
    from edgesppo.server.settings import ServerSettings

# A stream whose answer has to wait longer than this for a sequence begins without it.
_BEGIN_S = 5.0
# The most threads that tokenise prompts and turn schemas into grammars.
PLANNERS = 4
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What a request comes to: prompts, each to be answered `n` times.

    `length_field` is the request's field that says how long an answer may be.
    """

    prompts: list[list[int]]
    params: SamplingParams
    grammar: str | None = None
    n: int = 1
    length_field: str = "max_tokens"


class Service:
    """The model, the queue and the budgets of one server."""

    def __init__(self, load: Callable[[], LoadedModel], settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.budgets = Budgets()
        self.open_answers = 0  # requests whose answers have not been closed
        snapshots = None
        if settings.snapshot_folder is not None and settings.snapshot_bytes:
            snapshots = Snapshots(settings.snapshot_folder, settings.snapshot_bytes, settings.keys)
        self.worker = Worker(
            load,
            max_queue=settings.max_queue,
            metrics=self.metrics,
            most_tokens=settings.limits.max_tokens,
            several_keys=len(settings.keys) > 1,
            snapshots=snapshots,
        )
        worker = self.worker
        self.metrics.watch("ready", "1 if it answers", lambda: float(worker.status == OK))
        self.metrics.watch("queue_length", "Waiting answers", lambda: worker.n_waiting)
        self.metrics.watch("active_sequences", "Running answers", lambda: worker.n_running)
        self.metrics.watch("kv_cache_share", "Share of the KV cache in use", worker.kv_share)

    @property
    def backend(self) -> Backend:
        """The loaded model. Raises a 503 while there is none."""
        return self.worker.backend

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for an answer."""
        return not self.open_answers and self.worker.is_idle

    def require_model(self, name: str | None) -> None:
        """Raise a 404 unless `name` is one of the model that is served, or None."""
        mine = self.backend.name
        names = {one for own in (mine, *self.settings.aliases) for one in (own, f"{own}:latest")}
        if name is not None and name not in names:
            raise ApiError(
                404,
                f"the model {name[:100]!r} does not exist here; this server has {mine!r}",
                code="model_not_found",
                param="model",
            )

    @functools.cached_property
    def _planners(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(PLANNERS)

    async def aside(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on one of a few threads, so that the event loop goes on."""
        return await anyio.to_thread.run_sync(function, *args, limiter=self._planners)

    async def start(
        self, request: Request, make_plan: Callable[[Backend], Plan], param: str
    ) -> Answers:
        """Check and submit a request; the plan is made on another thread.

        `param` is the request's field that holds the prompt.

        Raises an ApiError. What it returns has to be closed.
        """
        key: ApiKey | None = getattr(request.state, "key", None)
        backend = self.backend
        self.budgets.spend_request(key)
        try:
            plan = await self.aside(make_plan, backend)
        except EdgesppoError as error:
            raise from_exception(error, param) from None
        jobs = self._jobs(plan, key)
        self.worker.submit(jobs)
        answers = Answers(self, request, jobs, plan.n, key)
        try:
            await answers.begun()
        except BaseException:
            answers.close()
            raise
        return answers

    def _jobs(self, plan: Plan, key: ApiKey | None) -> list[Job]:
        limits = self.settings.limits
        if plan.n > limits.n:
            raise bad_request(
                f"n is {plan.n}, expected at most {limits.n} answers at once", "n", "invalid_value"
            )
        if (n_answers := len(plan.prompts) * plan.n) > limits.n:
            raise bad_request(
                f"there are {len(plan.prompts)} prompts, which make {n_answers} answers, expected "
                f"at most {limits.n} at once",
                "prompt",
                "invalid_value",
            )
        if plan.params.max_tokens > limits.max_tokens:
            raise bad_request(
                f"{plan.length_field} is {plan.params.max_tokens}, expected at most "
                f"{limits.max_tokens}, the limit of this server (--max-tokens)",
                plan.length_field,
                "invalid_value",
            )
        owner = "" if key is None else key.name
        jobs: list[Job] = []
        for prompt in plan.prompts:
            leader: Job | None = None
            for i in range(plan.n):
                params = plan.params
                if params.seed is not None and i:
                    params = params.replace(seed=(params.seed + i) % 2**32 % (2**32 - 1))
                job = Job(prompt, params, plan.grammar, owner, leader)
                leader = leader or job
                jobs.append(job)
        return jobs


class Answers:
    """The answers to one request. `close` ends those that are still computed."""

    def __init__(
        self, service: Service, request: Request, jobs: list[Job], n: int, key: ApiKey | None
    ) -> None:
        self.jobs = jobs
        self.n = n  # for each prompt
        self._service = service
        self._request = request
        self._key = key
        self._deadline = anyio.current_time() + service.settings.deadlines.total_s
        self._closed = False
        service.open_answers += 1

    async def begun(self) -> None:
        """Wait until the first answer has begun, or for some time.

        Raises an ApiError if it cannot begin, also if the client goes away.
        """
        try:
            await self._unless_gone(self.jobs[0].begun(_BEGIN_S))
        except EdgesppoError as error:
            raise from_exception(error) from None

    def close(self) -> None:
        """End what is still computed, and count what was."""
        if self._closed:
            return
        self._closed = True
        self._service.open_answers -= 1
        unfinished = [job for job in self.jobs if not job.over]
        if unfinished:
            self._service.metrics.disconnects.inc(len(unfinished))
            self._service.worker.cancel(unfinished)
        used = sum(
            job.n_delivered if job.usage is None else job.usage.completion_tokens
            for job in self.jobs
        )
        groups = (self.jobs[i : i + self.n] for i in range(0, len(self.jobs), self.n))
        asked = sum(
            len(group[0].prompt)
            for group in groups
            if any(job.admitted_at is not None for job in group)
        )
        self._service.budgets.spend_tokens(self._key, asked + used)
        self._request.state.tokens = (asked, used)

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
        raise took_too_long(self._service.settings.deadlines.total_s)

    async def results(self) -> list[Result]:
        """All answers, once they are whole. Raises an ApiError, also if the client goes away."""
        try:
            await self._unless_gone(self._read_all())
        finally:
            self.close()
        return [job.result() for job in self.jobs]

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


def now() -> int:
    """The time as the APIs write it."""
    return int(time.time())


def finish_reason(reason: str) -> str:
    """The reason as the API writes it. Raises an ApiError for an answer that the server ended."""
    if reason == "cancelled":
        raise ApiError(503, "the server stopped before the answer was whole", code="server_stopped")
    return reason
