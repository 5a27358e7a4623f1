"""`Cluster`: the machines of a Ray cluster, which answer the rows of a batch together.

Each machine has one actor, which loads the model from the machine's own store. It has a few rows
at a time and gets more as it returns results, so a slow machine gets fewer. What a lost machine
had is done again elsewhere; results are counted once.
"""

from __future__ import annotations

import collections
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesppo._version import __version__
from edgesppo.batches import result
from edgesppo.batches.machine import Machine, MachineWorker, SentRow
from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.remote.ray_connection import cause, connect, is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from types import TracebackType

    from edgesppo.batches.input import Key, Place
    from edgesppo.batches.result import BatchResult
    from edgesppo.batches.work import Counts, Report, Work

_LEASES = 2  # rows of a machine, for each answer that it computes at once
_TRIES = 3  # of a row whose machines are lost, and of a machine whose actor is
_POLL_S = 1.0
_LOOK_S = 3.0  # between two looks for machines without an actor


@dataclass(eq=False)
class _Actor:
    """A machine's actor: its node, what it is computing, and the rows that it has."""

    node: str
    handle: Any
    call: Any  # the reference of the call that is under way; None if it waits for rows
    machine: Machine | None = None
    rows: dict[Key, Place] = field(default_factory=dict)


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
        self._ray = connect(address)
        self._arguments = (model, parallel, loading)
        self._parallel = parallel
        self._say = say
        self._actors: list[_Actor] = []
        self._look_at = 0.0  # when to look for machines again, by time.monotonic()
        self._starts: collections.Counter[str] = collections.Counter()  # by node
        self._model: Machine | None = None  # the first machine's, which the others must have, too
        self._refusal: EdgesppoError | None = None
        try:
            self._start_actors()
            while self._model is None and self._actors:  # the others join later
                for actor, call in self._wait():
                    self._take_in(actor, call)
            model_there = self._require_model(address)
        except BaseException:
            self.close()
            raise
        self.name = model_there.name
        self.fingerprint = model_there.fingerprint
        self.defaults = model_there.defaults

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors.clear()
        self._ray.shutdown()

    def _require_model(self, address: str) -> Machine:
        if self._model is None:
            raise self._refusal or UsageError(f"the Ray cluster at {address} has no machines")
        return self._model

    @property
    def hosts(self) -> list[str]:
        """The names of the machines that take part."""
        return [actor.machine.host for actor in self._actors if actor.machine is not None]

    def answer(
        self, work: Work, places: Iterable[Place], counts: Counts, report: Report | None
    ) -> Generator[BatchResult, None, None]:
        """The result of each row, as it is done. Raises UsageError if all machines are lost."""
        waiting = collections.deque(work.in_order(places))
        lost: collections.Counter[Key] = collections.Counter()
        recipe = self._ray.put(work.recipe)
        ready: set[_Actor] = set()
        while waiting or any(actor.rows for actor in self._actors):
            for actor in self._actors:
                if actor.machine is not None and actor not in ready:
                    actor.handle.begin.remote(recipe)
                    ready.add(actor)
                self._hand_out(actor, waiting, work)
            for actor, found in self._collect():
                if found is None:
                    yield from self._give_back(actor, waiting, lost, work, counts)
                    continue
                for one in found:
                    if actor.rows.pop(one.key, None) is not None:
                        _count(counts, one)
                        yield one
            counts.running = sum(len(actor.rows) for actor in self._actors)
            if report is not None:
                report(counts)

    def _hand_out(self, actor: _Actor, waiting: collections.deque[Place], work: Work) -> None:
        """Give an actor that waits for it more rows, and let it go on."""
        if actor.call is not None or actor.machine is None:
            return
        rows = []
        while waiting and len(actor.rows) < self._parallel * _LEASES:
            place = waiting.popleft()
            actor.rows[place.key] = place
            rows.append(SentRow(place, work.labels[place.row], work.rows.read(place)))
        if actor.rows:
            actor.call = actor.handle.turn.remote(rows)

    def _collect(self) -> Iterator[tuple[_Actor, list[BatchResult] | None]]:
        """The results that have come; None for an actor that is lost. Waits a second at most."""
        self._start_actors()
        if not self._actors:
            self._look_at = 0.0
            self._start_actors()
        if not self._actors:
            raise UsageError(
                "all machines of the Ray cluster are lost; start it again, and give the same "
                "command, which goes on"
            )
        for actor, call in self._wait():
            if actor.machine is None:
                self._take_in(actor, call)
                continue
            try:
                yield actor, self._ray.get(call)
            except self._ray.exceptions.RayActorError:
                yield actor, None
            except self._ray.exceptions.RayTaskError as error:
                raise cause(error) from None

    def _wait(self) -> list[tuple[_Actor, Any]]:
        """The actors whose calls have ended, and those calls; waits a second at most."""
        calls = {actor.call: actor for actor in self._actors if actor.call is not None}
        if not calls:
            return []
        done, _ = self._ray.wait([*calls], num_returns=1, timeout=_POLL_S)
        ended = [(calls[call], call) for call in done]
        for actor, _ in ended:
            actor.call = None
        return ended

    def _give_back(
        self,
        actor: _Actor,
        waiting: collections.deque[Place],
        lost: collections.Counter[Key],
        work: Work,
        counts: Counts,
    ) -> Iterator[BatchResult]:
        """Let others do the rows of a lost machine; yields those that were lost too often."""
        assert actor.machine is not None, "it had rows"
        self._actors.remove(actor)
        self._say(f"{actor.machine.host} is lost; others do its {len(actor.rows)} rows again")
        for key, place in reversed(actor.rows.items()):
            lost[key] += 1
            if lost[key] < _TRIES:
                waiting.appendleft(place)
                continue
            message = f"{_TRIES} machines were lost while they answered it"
            failed = result.refused(key, work.labels[place.row], message, "machine_lost")
            _count(counts, failed)
            yield failed
        actor.rows.clear()

    def _start_actors(self) -> None:
        """Start an actor on each machine that has none; looks for them every few seconds."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        strategies = self._ray.util.scheduling_strategies
        taken = {actor.node for actor in self._actors}
        for node in self._ray.nodes():
            name = node["NodeID"]
            if not node["Alive"] or name in taken or self._starts[name] >= _TRIES:
                continue
            if not node["Resources"].get("CPU"):
                continue
            self._starts[name] += 1
            here = strategies.NodeAffinitySchedulingStrategy(name, soft=False)
            remote = self._ray.remote(MachineWorker)
            handle = remote.options(scheduling_strategy=here, num_cpus=1).remote(*self._arguments)
            self._actors.append(_Actor(name, handle, handle.describe.remote()))

    def _take_in(self, actor: _Actor, call: Any) -> None:
        """Take in an actor that has loaded the model; leave it out if it could not."""
        try:
            machine = self._ray.get(call)
            self._check(machine)
            actor.machine = machine
            self._say(f"{machine.host} takes part")
        except (EdgesppoError, self._ray.exceptions.RayError) as error:
            self._refusal = cause(error)
            if isinstance(error, EdgesppoError) or is_refusal(error):
                self._starts[actor.node] = _TRIES  # it would be the same again
            self._actors.remove(actor)
            self._say(f"a machine takes no part: {self._refusal}")

    def _check(self, machine: Machine) -> None:
        """Raise UsageError unless the machine has our version, and the others' model."""
        if machine.version != __version__:
            raise UsageError(
                f"{machine.host} has edgesppo {machine.version}, this machine {__version__}; "
                "install the same there"
            )
        if self._model is None:
            self._model = machine
        elif machine.fingerprint != self._model.fingerprint:
            raise UsageError(
                f"the model {machine.name} of {machine.host} is another file than that of "
                f"{self._model.host}; pull or copy the same there"
            )


def _count(counts: Counts, one: BatchResult) -> None:
    counts.done += 1
    counts.errors += one.error is not None
    usage = one.usage
    counts.prompt_tokens += usage.get("prompt_tokens", 0)
    details = usage.get("prompt_tokens_details", usage)
    counts.cached_tokens += details.get("cached_tokens", 0)
    counts.completion_tokens += usage.get("completion_tokens", 0)
