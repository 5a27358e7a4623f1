"""Collect input sums on the machines of a Ray cluster, each with the model of its own store.

Each machine has one actor, which holds the model against its lock and loads it once. It gets the
next lease of a few samples as soon as it is free, so a slow machine gets fewer; the leases of a
lost machine are done elsewhere. The sums come back in the samples' order, so that what is done can
be counted, saved and resumed as on one machine.
"""

from __future__ import annotations

import collections
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo._version import __version__
from edgesppo.errors import UsageError
from edgesppo.evaluate.candidate import RunOptions, find_unquantised, model_hash
from edgesppo.evaluate.input_sums import InputSums
from edgesppo.remote.ray_connection import cause, connect, is_refusal
from edgesppo.store import verify

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from edgesppo.evaluate.input_sums import Squares

_LEASES = 4  # of a machine, at least
_LONGEST = 32  # samples of a lease
_TRIES = 3


@dataclass(frozen=True)
class OnCluster:
    """A Ray cluster's address, and the name or path under which its machines have the model."""

    address: str
    model: str


class SumsWorker:
    """The input sums of samples, by the model of this machine; Ray makes an actor of it.

    Raises BadModelFile where the model's file is not what the lock says, and UsageError where the
    version or the file is another than the first machine's.
    """

    def __init__(
        self, version: str, model: str, fingerprint: str, n_ctx: int, options: dict[str, Any]
    ) -> None:
        if version != __version__:
            raise UsageError(f"a machine has edgesppo {__version__}, the first {version}")
        verify.require_sound(model)
        candidate = find_unquantised(model, RunOptions(gpu=options["gpu"]))
        if model_hash(candidate) != fingerprint:
            raise UsageError(
                f"the model {model} of a machine is another file than the first machine's; pull or "
                "copy the same there"
            )
        wanted = options["process_output"]
        self._inputs = InputSums(candidate, n_ctx, options["gpu"], process_output=wanted)

    def ready(self) -> None:
        """Nothing: it has loaded the model once this can be called."""

    def of(self, samples: Sequence[tuple[Sequence[int], str]]) -> list[list[Squares]]:
        """The sums of these samples (ids and name)."""
        return [self._inputs.of(ids, name) for ids, name in samples]


@contextmanager
def cluster_squares(
    where: OnCluster,
    fingerprint: str,
    samples: Sequence[tuple[Sequence[int], str]],
    *,
    gpu: str | int,
    process_output: bool,
) -> Iterator[Iterator[list[Squares]]]:
    """The sums of each sample, in order. Raises UsageError where there is no such cluster."""
    ray = connect(where.address)
    try:
        options = {"gpu": gpu, "process_output": process_output}
        found = _squares(ray, (__version__, where.model, fingerprint), samples, options)
        with closing(found):
            yield found
    finally:
        ray.shutdown()


def _squares(
    ray: Any,
    whose: tuple[str, str, str],
    samples: Sequence[tuple[Sequence[int], str]],
    options: dict[str, Any],
) -> Generator[list[Squares], None, None]:
    n_ctx = max([16, *(len(ids) for ids, _ in samples)])
    machines = _Machines(ray, (*whose, n_ctx, options))
    size = max(1, min(_LONGEST, len(samples) // (_LEASES * machines.n_at_first)))
    leases = [samples[at : at + size] for at in range(0, len(samples), size)]
    waiting = collections.deque(range(len(leases)))
    done: dict[int, list[list[Squares]]] = {}
    try:
        for number in range(len(leases)):
            while number not in done:
                machines.hand_out(waiting, leases)
                done.update(machines.collect(waiting))
            yield from done.pop(number)
    finally:
        machines.close()


class _Machines:
    """The actors of a cluster, one on each machine, and the leases that they have."""

    def __init__(self, ray: Any, arguments: tuple[Any, ...]) -> None:
        self._ray = ray
        self._arguments = arguments
        self._free: list[Any] = []
        # Reference -> actor, and its lease; None while it loads the model.
        self._calls: dict[Any, tuple[Any, int | None]] = {}
        self._lost: collections.Counter[int] = collections.Counter()
        nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
        if not nodes:
            raise UsageError("the Ray cluster has no machines with processors")
        self.n_at_first = len(nodes)
        for node in nodes:
            self._start(node["NodeID"])

    def _start(self, node: str) -> None:
        strategies = self._ray.util.scheduling_strategies
        here = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        worker = self._ray.remote(SumsWorker).options(scheduling_strategy=here, num_cpus=1)
        actor = worker.remote(*self._arguments)
        self._calls[actor.ready.remote()] = (actor, None)

    def hand_out(self, waiting: collections.deque[int], leases: Sequence[Any]) -> None:
        """Give the next leases to the machines that are free."""
        while self._free and waiting:
            actor, number = self._free.pop(), waiting.popleft()
            self._calls[actor.of.remote(leases[number])] = (actor, number)

    def collect(self, waiting: collections.deque[int]) -> dict[int, list[list[Squares]]]:
        """The leases that are done; those of a machine that was lost wait again."""
        if not self._calls:
            raise UsageError(
                "all machines of the Ray cluster are lost; start it again, and give the same "
                "command, which goes on"
            )
        found = {}
        ended, _ = self._ray.wait([*self._calls], num_returns=1)
        for call in ended:
            actor, number = self._calls.pop(call)
            try:
                result = self._ray.get(call)
            except self._ray.exceptions.RayActorError as error:
                self._give_back(number, error, waiting)
            except self._ray.exceptions.RayError as error:
                raise cause(error) from None
            else:
                self._free.append(actor)
                if number is not None:
                    found[number] = result
        return found

    def _give_back(
        self, number: int | None, error: Exception, waiting: collections.deque[int]
    ) -> None:
        """Let another machine do the lease of one that was lost; raises what refused to start."""
        if is_refusal(error):
            raise cause(error) from None
        if number is None:
            return
        self._lost[number] += 1
        if self._lost[number] >= _TRIES:
            raise cause(error) from None
        waiting.appendleft(number)

    def close(self) -> None:
        """End the actors."""
        for actor in [*self._free, *(actor for actor, _ in self._calls.values())]:
            self._ray.kill(actor)
