"""Collect input sums on the machines of a Ray cluster, each with the model of its own store.

The sums come back in the samples' order, so that what is done can be counted, saved and resumed as
on one machine.
"""

from __future__ import annotations

import socket
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.evaluate.candidate import RunOptions, find_unquantised, model_hash
from edgesppo.evaluate.input_sums import InputSums
from edgesppo.remote.pool import TRIES, Pool
from edgesppo.remote.worker import Machine
from edgesppo.store import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from edgesppo.evaluate.input_sums import Squares
    from edgesppo.planning.run_config import Gpu

    Sample = tuple[Sequence[int], str]  # ids, and a name for messages

_LEASES = 4  # of a machine, at least
_LONGEST = 8  # samples of a lease
# So many leases for each machine, from the first sample without its sums on, may be under way: what
# comes before its turn takes memory here, 4 MB a sample for the 9B. A machine whose lease takes
# longer than so many of the others' holds them back.
_AHEAD = 4


@dataclass(frozen=True)
class OnCluster:
    """A Ray cluster's address, and the name or path under which its machines have the model.

    `say` is told which machines take part, and which do not and why.
    """

    address: str
    model: str
    say: Callable[[str], None] = lambda _: None


class SumsWorker:
    """The input sums of samples, by the model of this machine; Ray makes an actor of it.

    Raises BadModelFile where the model's file is not what the lock says.
    """

    def __init__(
        self,
        model: str,
        n_ctx: int,
        gpu: Gpu,
        n_threads: int | None = None,
        *,
        process_output: bool,
    ) -> None:
        verify.require_sound(model)
        self._candidate = find_unquantised(model, RunOptions(n_threads, gpu))
        self._inputs = InputSums(self._candidate, n_ctx, process_output=process_output)

    def describe(self) -> Machine:
        """This machine and its model."""
        candidate = self._candidate
        return Machine(socket.gethostname(), candidate.name, model_hash(candidate))

    def begin(self, job: object) -> None:
        """Nothing: the samples have nothing in common but the model."""

    def turn(self, samples: list[tuple[int, Sample]]) -> list[tuple[int, list[Squares]]]:
        """The sums of these samples, which have numbers."""
        return [(number, self._inputs.of(ids, name)) for number, (ids, name) in samples]


@contextmanager
def cluster_squares(
    where: OnCluster,
    fingerprint: str,
    samples: Sequence[Sample],
    *,
    run: RunOptions,
    process_output: bool,
) -> Iterator[Iterator[list[Squares]]]:
    """The sums of each sample, in order. Raises UsageError where there is no such cluster."""
    n_ctx = max([16, *(len(ids) for ids, _ in samples)])
    how: dict[str, Any] = {"n_ctx": n_ctx, "gpu": run.gpu, "n_threads": run.n_threads}
    how["process_output"] = process_output
    more: dict[str, Any] = {"say": where.say, "noun": "samples", "fingerprint": fingerprint}
    with (
        Pool(where.address, SumsWorker, {"model": where.model, **how}, **more) as pool,
        closing(_in_order(pool, samples)) as found,
    ):
        yield found


def _in_order(pool: Pool, samples: Sequence[Sample]) -> Generator[list[Squares], None, None]:
    most = max(1, min(_LONGEST, len(samples) // (_LEASES * pool.n_machines)))
    waiting: dict[int, list[Squares]] = {}  # what came before its turn
    following = limit = 0

    def may_begin(number: int) -> bool:
        nonlocal limit  # is never less than it was: what a lost machine had may begin again
        limit = max(limit, following + _AHEAD * most * pool.n_machines)
        return number < limit

    keys = range(len(samples))
    for done in pool.run(keys, lambda n: (n, samples[n]), most=most, may_begin=may_begin):
        for number, squares in done:
            if squares is None:
                raise UsageError(f"{TRIES} machines were lost while they did {samples[number][1]}")
            waiting[number] = squares
        while following in waiting:
            yield waiting.pop(following)
            following += 1
