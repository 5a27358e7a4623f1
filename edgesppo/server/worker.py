"""The worker: the one thread that loads the model and computes, for all requests together.

Requests are handed over by `submit` and `cancel`, which never wait for a step; what was computed
goes back to the event loop, one call for each step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from edgesppo._version import __version__
from edgesppo.errors import BadModelFile
from edgesppo.server.backend import Backend
from edgesppo.server.errors import unavailable
from edgesppo.server.job import Job, News

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.chat.result import Chunk
    from edgesppo.loaded_model import LoadedModel
    from edgesppo.server.jobs import Jobs
    from edgesppo.server.metrics import Metrics
    from edgesppo.server.snapshots import Snapshots

LOADING, OK, DRAINING, FAILED, STOPPED = "loading", "ok", "draining", "failed", "stopped"
# Seconds until a step for which memory was short is tried again.
_RECOVERY_S = 1.0
# Seconds for the thread to notice that nobody waits for it any more.
_LAST_S = 1.0
logger = logging.getLogger("edgesppo.server")
Deliveries = list[tuple[Job, list[News]]]


class Worker:
    """Computes the answers of a server. `start` it on the event loop that gets the answers."""

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        jobs: Jobs,
        metrics: Metrics,
        *,
        most_tokens: int | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.failure: BaseException | None = None  # why it has failed
        self._last_step_at = time.monotonic()
        self._load = load
        self._jobs = jobs
        self._metrics = metrics
        self._most_tokens = most_tokens
        self._snapshots = snapshots
        self._backend: Backend | None = None
        self._is_ready = self._is_draining = False
        self._ended: str | None = None  # FAILED or STOPPED
        self._in_haste = False  # nothing is saved, and nobody waits for the thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="edgesppo-worker", daemon=True)

    def start(self) -> None:
        """Start loading the model."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def status(self) -> str:
        """LOADING, OK, DRAINING, FAILED or STOPPED."""
        if self._ended is not None:
            return self._ended
        return DRAINING if self._is_draining else OK if self._is_ready else LOADING

    @property
    def backend(self) -> Backend:
        """The model. Raises a 503 while it loads, and after it failed to."""
        if self._backend is None or self._ended is not None:
            raise unavailable(self.status)
        return self._backend

    @property
    def n_waiting(self) -> int:
        """The number of answers that wait for a sequence."""
        return self._jobs.n_waiting + self._jobs.n_running - self.n_running

    @property
    def n_running(self) -> int:
        """The number of answers that are being computed."""
        n_running = 0 if self._backend is None else self._backend.n_running
        return min(n_running, self._jobs.n_running)

    def step_age_s(self) -> float | None:
        """Seconds since the last step ended, or since there was something to compute.

        None while there is nothing to compute.
        """
        idle = not self._jobs.n_running
        return None if idle else round(time.monotonic() - self._last_step_at, 3)

    def require_room(self, jobs: list[Job]) -> None:
        """Raise what `submit` would, but for what changes until then."""
        backend = self.backend
        if self.status != OK:
            raise unavailable(self.status)
        self._jobs.require_room(jobs[0].owner, len(jobs), backend.n_seqs)

    def submit(self, jobs: list[Job]) -> None:
        """Queue answers, all or none, each with a `generation`.

        Raises a 429 if too many wait already, a 400 if there will never be room for so many, and a
        503 while the server drains.
        """
        if self.status != OK:
            raise unavailable(self.status)
        self._jobs.add(jobs, self.backend.n_seqs)

    def cancel(self, jobs: list[Job]) -> None:
        """End answers within one step; harmless for those that have ended."""
        for job in jobs:
            job.cancelled = True
            if not job.over and job.generation is not None:
                job.generation.withdraw()
        self._jobs.wake()

    def drain(self) -> None:
        """Accept no more answers; those that wait or run go on. Takes no lock."""
        self._is_draining = True

    def kv_share(self) -> float:
        """The share of the KV cache in use, from 0 to 1."""
        backend = self._backend
        return 0.0 if backend is None else backend.kv_share()

    def hurry(self) -> None:
        """Have `stop` save nothing, or no more, and not wait. Takes no lock."""
        self._in_haste = True

    def stop(self) -> None:
        """End all answers, save the snapshots, and free the model; harmless when repeated.

        Waits for the step under way, which is cut short, but not for a model that is loading.
        """
        for job in self._jobs.stop():
            if job.generation is not None:
                job.generation.withdraw(at_once=True)
        if self._backend is None:
            return
        while self._thread.is_alive() and not self._in_haste:
            self._thread.join(0.05)
        if self._thread.is_alive():
            self._thread.join(_LAST_S)

    def _run(self) -> None:
        """The thread's work: load, then compute until it is stopped."""
        try:
            self._backend = backend = Backend(self._load(), self._most_tokens)
            if self._snapshots is not None:
                self._snapshots.restore(backend)
            self._is_ready = True
            self._tell_ready(backend)
            while self._wait_for_work():
                self._compute(backend)
            self._end_all(STOPPED)
            if self._snapshots is not None:
                self._snapshots.save(backend, lambda: not self._in_haste)
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
        was_idle = self._jobs.is_idle
        goes_on = self._jobs.wait()
        if was_idle:
            self._last_step_at = time.monotonic()
        return goes_on

    def _compute(self, backend: Backend) -> None:
        """Admit what has room, compute one step, and deliver its news."""
        deliveries: Deliveries = [(job, []) for job in self._jobs.remove_cancelled()]
        for job, _ in deliveries:
            self._end(job)
        self._admit(backend, deliveries)
        memory_is_short = False
        try:
            memory_is_short = backend.step()
        except BadModelFile:  # no step will succeed any more
            raise
        except Exception as error:  # nothing was computed for anyone
            for job in self._jobs.running():
                self._fail(job, error, deliveries)
        else:
            for job in self._jobs.running():
                self._collect_news(job, deliveries)
        self._last_step_at = time.monotonic()
        self._jobs.remove_over()
        self._metrics.steps.inc()
        self._deliver(deliveries)
        if memory_is_short:
            self._jobs.rest(_RECOVERY_S)

    def _admit(self, backend: Backend, deliveries: Deliveries) -> None:
        """Begin waiting answers while there is room for them.

        Those that wait in the engine, for what another one computes, take no sequence: as many
        others may begin, but no more than there are sequences.
        """
        n_waiting = max(0, self._jobs.n_running - backend.n_running)
        n_places = backend.n_seqs + min(n_waiting, backend.n_seqs)
        while (job := self._jobs.begin_next(n_places)) is not None:
            assert job.generation is not None, "it was prepared"
            try:
                backend.begin(job.generation)
            except Exception as error:
                self._fail(job, error, deliveries)
            else:
                job.chunks = iter(job.generation)
                if self._jobs.n_running <= backend.n_seqs:
                    deliveries.append((job, []))

    def _collect_news(self, job: Job, deliveries: Deliveries) -> None:
        """Append what the last step computed for a job, if anything."""
        chunks: list[Chunk] = []
        assert job.generation is not None, "it runs"
        assert job.chunks is not None, "it runs"
        try:
            while not job.over and job.generation.has_news:
                chunk = next(job.chunks)
                chunks.append(chunk)
                job.over = chunk.finish_reason is not None
        except Exception as error:
            deliveries.append((job, [*chunks]))
            self._fail(job, error, deliveries)
            return
        if chunks:
            self._metrics.observe(job, chunks)
            deliveries.append((job, [*chunks]))
        if job.over:
            self._end(job)

    def _fail(self, job: Job, error: Exception, deliveries: Deliveries) -> None:
        """End a job that cannot go on, and say why."""
        deliveries.append((job, [error]))
        self._end(job)

    def _end(self, job: Job) -> None:
        """Free a job's sequence, and count what it used."""
        job.over = True
        if job.generation is None or job.chunks is None:
            return
        assert self._backend is not None, "it began"
        if job.usage is None:
            with contextlib.suppress(Exception):
                job.usage = job.generation.result().usage
                self._metrics.count(job.usage, *self._backend.drafts(job.generation))
        with contextlib.suppress(Exception):
            job.generation.cancel()  # a step that failed has left it in the engine
        if self._snapshots is not None:
            with contextlib.suppress(Exception):
                self._backend.keep_what_returns(job.generation)

    def _end_all(self, status: str) -> None:
        """End what waits and runs, and say so; from then on nothing is accepted."""
        self._ended = status
        jobs = self._jobs.close(status)
        for job in jobs:
            self._end(job)
        self._deliver([(job, [unavailable(status)]) for job in jobs])

    def _deliver(self, deliveries: Deliveries) -> None:
        if deliveries:
            self._call(lambda: _hand_over(deliveries))

    def _call(self, function: Callable[[], object]) -> None:
        """Run a function on the event loop, if that has not been closed."""
        with contextlib.suppress(RuntimeError):
            assert self._loop is not None, "it was started"
            self._loop.call_soon_threadsafe(function)


def _hand_over(deliveries: Deliveries) -> None:
    for job, news in deliveries:
        job.deliver(news)
