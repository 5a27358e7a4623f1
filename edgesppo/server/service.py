"""`Service`: what the handlers of all dialects share, from a checked request to its answers."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from edgesppo.errors import EdgesppoError
from edgesppo.server.answers import Answers
from edgesppo.server.budgets import Budgets
from edgesppo.server.errors import ApiError, bad_request, from_exception
from edgesppo.server.job import Job
from edgesppo.server.jobs import Jobs
from edgesppo.server.metrics import Metrics
from edgesppo.server.planners import PLANNERS, Planners
from edgesppo.server.snapshots import Snapshots
from edgesppo.server.worker import OK, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

    from edgesppo.loaded_model import LoadedModel
    from edgesppo.sampling.params import SamplingParams
    from edgesppo.server.api_keys import ApiKey
    from edgesppo.server.backend import Backend
    from edgesppo.server.settings import ServerSettings

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

    def most_tokens(self, n_ctx: int) -> int:
        """The most tokens of prompts and answers in a context of `n_ctx`."""
        longest = self.params.max_tokens
        return sum(len(ids) + self.n * min(longest, n_ctx - len(ids)) for ids in self.prompts)


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
        several = len(settings.keys) > 1
        self._planners = Planners(self._most_planned, several=several)
        self._jobs = Jobs(settings.max_queue, len(settings.keys))
        self.worker = Worker(
            load,
            self._jobs,
            self.metrics,
            most_tokens=settings.limits.max_tokens,
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
        return not self.open_answers and self._jobs.is_idle

    def _most_planned(self) -> int:
        """How many requests may be in planning: as many as may wait and be answered."""
        return self.settings.max_queue + max(PLANNERS, self.backend.n_seqs)

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

    async def run_in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on one of a few threads, so that the event loop goes on."""
        return await self._planners.run(function, *args)

    async def start(
        self, request: Request, make_plan: Callable[[Backend], Plan], param: str
    ) -> Answers:
        """Check and submit a request; the plan is made on another thread.

        `param` is the request's field that holds the prompt.

        Raises an ApiError. What it returns has to be closed.
        """
        arrived_at = time.perf_counter()
        key: ApiKey | None = getattr(request.state, "key", None)
        owner = "" if key is None else key.name
        backend = self.backend
        self.budgets.spend_request(key)
        try:
            with self._jobs.planned():
                plan = await self._planners.run_for(owner, make_plan, backend)
                jobs = self._jobs_of(plan, owner, arrived_at)
                reserved = await self._submit(plan, jobs, key)
        except (EdgesppoError, MemoryError) as error:
            raise from_exception(error, param) from None
        settle = functools.partial(self._settle, key, reserved)
        answers = Answers(jobs, plan.n, request, self.settings.deadlines.total_s, settle)
        self.open_answers += 1
        try:
            await answers.begun()
        except BaseException:
            answers.close()
            raise
        return answers

    async def _submit(self, plan: Plan, jobs: list[Job], key: ApiKey | None) -> int:
        """Have the answers computed; returns how many tokens of the key's budget are reserved."""
        self.worker.require_room(jobs)  # before the work for them
        reserved = plan.most_tokens(self.backend.n_ctx)
        self.budgets.reserve_tokens(key, reserved)
        try:
            await self._planners.run_for(jobs[0].owner, _prepare, self.backend, jobs)
            self.worker.submit(jobs)
        except BaseException:
            self.budgets.return_tokens(key, reserved)
            raise
        return reserved

    def _settle(self, key: ApiKey | None, reserved: int, answers: Answers) -> None:
        """End what is still computed of answers, and count what was."""
        self.open_answers -= 1
        if unfinished := answers.unfinished:
            self.metrics.unfinished.labels(answers.end_reason).inc(len(unfinished))
            self.worker.cancel(unfinished)
        self.budgets.return_tokens(key, reserved - sum(answers.n_tokens))

    def _jobs_of(self, plan: Plan, owner: str, arrived_at: float) -> list[Job]:
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
        return [
            Job(prompt, plan.params.with_seed_after(i), plan.grammar, owner, arrived_at)
            for prompt in plan.prompts
            for i in range(plan.n)
        ]


def _prepare(backend: Backend, jobs: list[Job]) -> None:
    for job in jobs:
        job.generation = backend.prepare(job.prompt, job.params, job.grammar, job.owner)


def now() -> int:
    """The time as the APIs write it."""
    return int(time.time())


def finish_reason(reason: str) -> str:
    """The reason as the API writes it. Raises an ApiError for an answer that the server ended."""
    if reason == "cancelled":
        raise ApiError(503, "the server stopped before the answer was whole", code="server_stopped")
    return reason
