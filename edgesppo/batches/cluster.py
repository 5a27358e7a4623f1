"""`Cluster`: the machines of a Ray cluster, which answer the rows of a batch together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.batches import result
from edgesppo.batches.machine import MachineWorker, SentRow
from edgesppo.remote.pool import TRIES, Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from edgesppo.batches.input import Key, Place
    from edgesppo.batches.machine import RowMachine
    from edgesppo.batches.result import BatchResult
    from edgesppo.batches.work import Counts, Report, Work

_LEASES = 2  # rows of a machine, for each answer that it computes at once


class Cluster:
    """The machines of a Ray cluster that have the model; a context manager.

    `say` is told which machines take part, and which do not and why. Work begins with the first
    machine; others join. Raises UsageError where Ray is missing or of another version, or no
    cluster answers; and what `load` raises if no machine has the model.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        parallel: int,
        loading: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._parallel = parallel
        arguments = {"model": model, "parallel": parallel, "loading": loading}
        self._pool = Pool(address, MachineWorker, arguments, say=say, noun="rows")
        first: RowMachine = self._pool.first
        self.name = first.name
        self.fingerprint = first.fingerprint
        self.defaults = first.defaults

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        self._pool.close()

    @property
    def hosts(self) -> list[str]:
        """The names of the machines that take part."""
        return self._pool.hosts

    def answer(
        self, work: Work, places: Iterable[Place], counts: Counts, report: Report | None
    ) -> Generator[BatchResult, None, None]:
        """The result of each row, as it is done. Raises UsageError if all machines are lost."""
        by_key = {place.key: place for place in work.in_order(places)}

        def read(key: Key) -> SentRow:
            place = by_key[key]
            return SentRow(place, work.labels[place.row], work.rows.read(place))

        most = self._parallel * _LEASES
        for done in self._pool.run(by_key, read, most=most, job=work.recipe):
            for key, found in done:
                place = by_key[key]
                if found is None:
                    message = f"{TRIES} machines were lost while they answered it"
                    label = work.labels[place.row]
                    found = result.refused(place.key, label, message, "machine_lost")
                _count(counts, found)
                yield found
            counts.running = self._pool.n_running
            if report is not None:
                report(counts)


def _count(counts: Counts, one: BatchResult) -> None:
    counts.done += 1
    counts.errors += one.error is not None
    usage = one.usage
    counts.prompt_tokens += usage.get("prompt_tokens", 0)
    details = usage.get("prompt_tokens_details", usage)
    counts.cached_tokens += details.get("cached_tokens", 0)
    counts.completion_tokens += usage.get("completion_tokens", 0)
