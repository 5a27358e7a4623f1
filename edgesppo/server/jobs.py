"""`Jobs`: the answers that wait and those that run, shared by the event loop and the worker."""

from __future__ import annotations

import collections
import contextlib
import threading
from typing import TYPE_CHECKING

from edgesppo.server.errors import bad_request, overloaded, unavailable
from edgesppo.server.fair_queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.server.job import Job

# Seconds that the first answer waits, at most, for requests that are being planned: answers whose
# prompts are computed in the same steps have no pauses for each other's.
_GATHER_S = 0.025


class Jobs:
    """At most `max_waiting` answers wait, but at least one of each of the `n_keys` API keys may."""

    def __init__(self, max_waiting: int, n_keys: int) -> None:
        self._max_waiting = max(max_waiting, n_keys)
        self._n_keys = n_keys
        self._changed = threading.Condition()  # guards all of these
        self._queue = FairQueue()
        self._running: list[Job] = []
        self._n_planned = 0
        self._stopping = False
        self._closed: str | None = None  # the status with which it ended

    @property
    def n_waiting(self) -> int:
        """The number of answers that have not begun."""
        return len(self._queue)

    @property
    def n_running(self) -> int:
        """The number of answers that have begun."""
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        """Whether no answer waits or runs."""
        with self._changed:
            return not self._running and not len(self._queue)

    def running(self) -> list[Job]:
        """The answers that have begun and are not over."""
        with self._changed:
            return [job for job in self._running if not job.over]

    def require_room(self, owner: str, n: int, n_seqs: int) -> None:
        """Raise a 400 if `n` answers can never wait together, and a 429 if they cannot now."""
        with self._changed:
            self._require_room(owner, n, n_seqs)

    def _require_room(self, owner: str, n: int, n_seqs: int) -> None:
        most = n_seqs + self._max_waiting - max(0, self._n_keys - 1)
        if n > most:
            raise bad_request(
                f"{n} answers are asked for at once, expected at most {most}: the queue of this "
                "server has no room for more (--max-queue)",
                "n",
                "invalid_value",
            )
        if n > max(0, n_seqs - len(self._running)) + self._room_for(owner):
            raise overloaded(len(self._queue))

    def _room_for(self, owner: str) -> int:
        """How many more answers may wait of one API key.

        Where there are several keys, each may take as many places as it leaves free, and leaves one
        for each of the others: so there is always room for another one.
        """
        n_free = self._max_waiting - len(self._queue)
        if self._n_keys < 2:
            return n_free
        n_others = self._n_keys - len({*self._queue.owners(), owner})
        return n_free - max(self._queue.count(owner), n_others)

    def add(self, jobs: list[Job], n_seqs: int) -> None:
        """Queue answers, all or none. Raises a 429 if there is no room, and a 503 once closed."""
        with self._changed:
            if self._closed is not None:
                raise unavailable(self._closed)
            self._require_room(jobs[0].owner, len(jobs), n_seqs)
            for job in jobs:
                self._queue.add(job)
            self._changed.notify()

    def begin_next(self, n_seqs: int) -> Job | None:
        """The next answer to begin, which runs from now on; None if there is none.

        While all sequences are taken, one may begin whose owner has less than an equal share of
        them: the engine makes room for it.
        """
        with self._changed:
            n_running = collections.Counter(job.owner for job in self._running)
            most = None
            if len(self._running) >= n_seqs:
                most = max(1, n_seqs // len({*n_running, *self._queue.owners()}))
            job = self._queue.pop(n_running, most)
            if job is not None:
                self._running.append(job)
            return job

    @contextlib.contextmanager
    def planned(self) -> Iterator[None]:
        """While the answers to a request are planned, which may be added at the end."""
        with self._changed:
            self._n_planned += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_planned -= 1
                self._changed.notify()

    def wait(self) -> bool:
        """Wait until there is something to compute; False when it is to stop."""
        with self._changed:
            if not self._has_work():
                self._changed.wait_for(self._has_work)
                self._changed.wait_for(lambda: self._stopping or not self._n_planned, _GATHER_S)
            return not self._stopping

    def _has_work(self) -> bool:
        return bool(self._stopping or self._running or len(self._queue))

    def rest(self, seconds: float) -> None:
        """Wait for some time, but no longer than until an answer is cancelled, or it is to stop."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or any(job.cancelled for job in self._running), seconds
            )

    def wake(self) -> None:
        """Have `wait` and `rest` look again."""
        with self._changed:
            self._changed.notify()

    def stop(self) -> list[Job]:
        """End a `rest`, and have `wait` return False; returns the answers that have begun."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
            return [*self._running]

    def remove_cancelled(self) -> list[Job]:
        """Take out the answers that nobody waits for."""
        with self._changed:
            gone = self._queue.remove_cancelled()
            gone += [job for job in self._running if job.cancelled]
            self._running = [job for job in self._running if not job.cancelled]
        return gone

    def remove_over(self) -> None:
        """Take out the answers that are over."""
        with self._changed:
            self._running = [job for job in self._running if not job.over]

    def close(self, status: str) -> list[Job]:
        """Accept no more answers, and take out all that there are."""
        with self._changed:
            self._closed = status
            jobs = [*self._running, *self._queue.clear()]
            self._running = []
        return jobs
