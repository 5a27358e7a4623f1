"""Which waiting answer is next: the owners of API keys take turns, each in the order of asking."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgesppo.server.job import Job


class FairQueue:
    """The jobs that wait for a sequence. Not safe for threads: its user holds a lock."""

    def __init__(self) -> None:
        self._lines: collections.OrderedDict[str, collections.deque[Job]] = (
            collections.OrderedDict()
        )

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Job]:
        for line in self._lines.values():
            yield from line

    def count(self, owner: str) -> int:
        """How many jobs of an owner wait."""
        return len(self._lines.get(owner, ()))

    def add(self, job: Job) -> None:
        """Append a job to its owner's line."""
        self._lines.setdefault(job.owner, collections.deque()).append(job)

    def owners(self) -> Iterable[str]:
        """Who waits."""
        return self._lines

    def pop(self, running: Mapping[str, int], most: int | None = None) -> Job | None:
        """Take out the next job; None if there is none that may start.

        It is of the owner with the fewest `running` ones, less than `most` of them, and among
        equals of the one who has waited longest for a turn.
        """
        owner = min(self._lines, key=lambda owner: running.get(owner, 0), default=None)
        if owner is None or (most is not None and running.get(owner, 0) >= most):
            return None
        line = self._lines[owner]
        job = line.popleft()
        self._lines.move_to_end(owner)
        if not line:
            del self._lines[owner]
        return job

    def remove_cancelled(self) -> list[Job]:
        """Take out the jobs that nobody waits for any more."""
        gone = [job for job in self if job.cancelled]
        for job in gone:
            self._lines[job.owner].remove(job)
            if not self._lines[job.owner]:
                del self._lines[job.owner]
        return gone

    def clear(self) -> list[Job]:
        """Take out all jobs."""
        jobs = [*self]
        self._lines.clear()
        return jobs
