"""The worker: the one thread that loads the model and computes, for all requests together.

Requests are handed over by `submit` and `cancel`, which never wait for a step; what was computed
goes back to the event loop, one call for each step.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from edgesppo._version import __version__
from edgesppo.errors import EdgesppoError, OutOfMemory
from edgesppo.server.backend import Backend
from edgesppo.server.errors import overloaded, unavailable
from edgesppo.server.fair_queue import FairQueue
from edgesppo.server.job import Job, News
from edgesppo.system import memory_guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.loaded_model import LoadedModel
    from edgesppo.server.metrics import Metrics
    from edgesppo.server.snapshots import Snapshots

LOADING, OK, DRAINING, FAILED, STOPPED = "loading", "ok", "draining", "failed", "stopped"
# What ends the answers that it hits, and not the server.
_FAULTS = (EdgesppoError, MemoryError)
logger = logging.getLogger("edgesppo.server")
Deliveries = list[tuple[Job, list[News]]]


class Worker:
    """Computes the answers of a server. `start` it on the event loop that gets the answers."""

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        *,
        max_queue: int,
        metrics: Metrics,
        most_tokens: int | None = None,
        several_keys: bool = False,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.status = LOADING
        self.failure: BaseException | None = None  # why the model could not be loaded
        self._last_step_at = time.monotonic()
        self._load = load
        self._max_queue = max_queue
        self._metrics = metrics
        self._most_tokens = most_tokens
        self._several_keys = several_keys
        self._snapshots = snapshots
        self._backend: Backend | None = None
        self._wake = threading.Condition()
        self._queue = FairQueue()  # with _running, guarded by _wake
        self._running: list[Job] = []
        self._stopping = False
        self._saves = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="edgesppo-worker", daemon=True)

    def start(self) -> None:
        """Start loading the model."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def backend(self) -> Backend:
        """The model. Raises a 503 while it loads, and after it failed to."""
        if self._backend is None or self.status in (FAILED, STOPPED):
            raise unavailable(self.status)
        return self._backend

    @property
    def n_waiting(self) -> int:
        """The number of answers that wait for a sequence."""
        return len(self._queue)

    @property
    def n_running(self) -> int:
        """The number of answers that are being computed."""
        return len(self._running)

    def step_age_s(self) -> float | None:
        """Seconds since the last step ended, or since there was something to compute.

        None while there is nothing to compute.
        """
        return round(time.monotonic() - self._last_step_at, 3) if self._running else None

    def submit(self, jobs: list[Job]) -> None:
        """Queue answers, all or none.

        Raises a 429 if too many wait already, and a 503 while the server drains.
        """
        backend = self.backend
        with self._wake:
            if self.status != OK:
                raise unavailable(self.status)
            n_free = max(0, backend.n_seqs - len(self._running))
            if len(jobs) > n_free + self._room_for(jobs[0].owner):
                raise overloaded(len(self._queue))
            for job in jobs:
                self._queue.add(job)
            self._wake.notify()

    def _room_for(self, owner: str) -> int:
        """How many more answers may wait of one API key.

        Where there are several keys, each may take as many places as it leaves free: so there is
        always room for another one.
        """
        n_free = self._max_queue - len(self._queue)
        return n_free - self._queue.count(owner) if self._several_keys else n_free

    def cancel(self, jobs: list[Job]) -> None:
        """End answers within one step; harmless for those that have ended."""
        for job in jobs:
            job.cancelled = True
            if not job.over and job.generation is not None:
                job.generation.withdraw()
        with self._wake:
            self._wake.notify()

    def drain(self) -> None:
        """Accept no more answers; those that wait or run go on."""
        if self.status in (LOADING, OK):
            self.status = DRAINING

    def kv_share(self) -> float:
        """The share of the KV cache in use, from 0 to 1."""
        backend = self._backend
        return 0.0 if backend is None else backend.kv_share()

    @property
    def is_idle(self) -> bool:
        """Whether no answer waits or runs."""
        with self._wake:
            return not self._running and not len(self._queue)

    def stop(self, *, save: bool = True) -> None:
        """End all answers, save the snapshots, and free the model; harmless when repeated.

        Waits for the step under way, which is cut short, but not for a model that is loading.
        """
        with self._wake:
            self._stopping, self._saves = True, save
            running = [*self._running]
            self._wake.notify()
        for job in running:
            if job.generation is not None:
                job.generation.withdraw(at_once=True)
        if self._thread.is_alive() and self._backend is not None:
            self._thread.join()

    def _run(self) -> None:
        """The thread's work: load, then compute until it is stopped, or fails unexpectedly."""
        try:
            self._backend = Backend(self._load(), self._most_tokens)
            if self._snapshots is not None:
                self._snapshots.restore(self._backend)
            if self.status == LOADING:
                self.status = OK
            self._tell_ready(self._backend)
            while self._wait_for_work():
                self._compute(self._backend)
            self._end_all(STOPPED)
            if self._snapshots is not None and self._saves:
                self._snapshots.save(self._backend)
        except BaseException as error:
            self.failure = error
            self._end_all(FAILED)
        finally:
            if self._backend is not None:
                self._backend.close()

    def _tell_ready(self, backend: Backend) -> None:
        self._metrics.describe(model=backend.name, version=__version__)
        n = backend.n_seqs
        logger.info(
            "Ready: %s, %s tokens of context, %s",
            backend.name,
            f"{backend.n_ctx:,}",
            "one answer at a time" if n == 1 else f"{n} answers at once",
        )

    def _wait_for_work(self) -> bool:
        """Wait until there is something to compute; False when stopping."""
        with self._wake:
            while not self._stopping and not self._running and not len(self._queue):
                self._wake.wait()
                self._last_step_at = time.monotonic()
            return not self._stopping

    def _compute(self, backend: Backend) -> None:
        """Admit what has room, compute one step, and deliver its news."""
        deliveries: Deliveries = [(job, []) for job in self._drop_cancelled()]
        self._admit(backend, deliveries)
        try:
            backend.step()
        except _FAULTS as error:  # nothing was computed for anyone
            deliveries += [(job, [_ours(error)]) for job in self._running]
            for job in self._running:
                self._end(job)
        else:
            deliveries += [(job, news) for job in self._running if (news := self._news(job))]
        self._last_step_at = time.monotonic()
        with self._wake:
            self._running = [job for job in self._running if not job.over]
        self._metrics.steps.inc()
        self._deliver(deliveries)

    def _drop_cancelled(self) -> list[Job]:
        """End the answers that nobody waits for."""
        with self._wake:
            gone = self._queue.remove_cancelled()
            gone += [job for job in self._running if job.cancelled]
            self._running = [job for job in self._running if not job.cancelled]
        for job in gone:
            self._end(job)
        return gone

    def _admit(self, backend: Backend, deliveries: Deliveries) -> None:
        """Begin waiting answers while sequences are free."""
        while len(self._running) < backend.n_seqs:
            with self._wake:
                job = self._queue.pop(collections.Counter(job.owner for job in self._running))
            if job is None:
                return
            try:
                job.generation = backend.begin(job.prompt, job.params, job.grammar, job.owner)
            except _FAULTS as error:
                job.over = True
                deliveries.append((job, [_ours(error)]))
                continue
            job.chunks = iter(job.generation)
            job.admitted_at = time.perf_counter()
            deliveries.append((job, []))
            with self._wake:
                self._running.append(job)

    def _news(self, job: Job) -> list[News]:
        """What the last step computed for a job."""
        news: list[News] = []
        assert job.generation is not None, "it runs"
        assert job.chunks is not None, "it runs"
        try:
            while not job.over and job.generation.has_news:
                chunk = next(job.chunks)
                news.append(chunk)
                job.over = chunk.finish_reason is not None
        except _FAULTS as error:
            news.append(_ours(error))
            job.over = True
        if news:
            self._metrics.observe(job, len(news))
        if job.over:
            self._end(job)
        return news

    def _end(self, job: Job) -> None:
        """Free a job's sequence, and count what it used."""
        job.over = True
        if job.generation is not None and job.usage is None:
            assert self._backend is not None, "it began"
            with contextlib.suppress(*_FAULTS):
                job.usage = job.generation.result().usage
                self._metrics.count(job.usage, *self._backend.drafts(job.generation))
        if job.chunks is not None:
            close = getattr(job.chunks, "close", None)
            if close is not None:
                with contextlib.suppress(*_FAULTS):
                    close()
        if job.generation is not None and self._snapshots is not None:
            assert self._backend is not None, "it began"
            with contextlib.suppress(*_FAULTS):
                self._backend.keep_what_returns(job.generation)

    def _end_all(self, status: str) -> None:
        """End what waits and runs, and say so; from then on nothing is accepted."""
        with self._wake:
            self.status = status
            jobs = [*self._running, *self._queue.clear()]
            self._running = []
        for job in jobs:
            self._end(job)
        self._deliver([(job, [unavailable(self.status)]) for job in jobs])

    def _deliver(self, deliveries: Deliveries) -> None:
        if deliveries:
            self._call(lambda: _hand_over(deliveries))

    def _call(self, function: Callable[[], object]) -> None:
        """Run a function on the event loop, if that has not been closed."""
        with contextlib.suppress(RuntimeError):
            assert self._loop is not None, "it was started"
            self._loop.call_soon_threadsafe(function)


def _ours(error: Exception) -> EdgesppoError:
    return error if isinstance(error, EdgesppoError) else OutOfMemory(memory_guard.shortage(error))


def _hand_over(deliveries: Deliveries) -> None:
    for job, news in deliveries:
        job.deliver(news)
