"""`Pool`: the machines of a Ray cluster, with an actor on each, which share the items of a run.

Each actor makes a worker, which loads the model from its machine's own store. It has a few items
at a time and gets more as it returns results, so a slow machine gets fewer. What a lost machine
had is done again elsewhere; results are counted once. Machines that come later join.
"""

from __future__ import annotations

import collections
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.remote.ray_connection import cause, connect, is_listening, is_refusal
from edgesppo.remote.worker import actor_class

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterable

    from edgesppo.remote.worker import Done, Machine, Worker

TRIES = 3  # of an item whose machines are lost, and of a machine whose actor is
_POLL_S = 1.0
_LOOK_S = 3.0  # between two looks for machines without an actor
_MISSES = 4  # looks in a row that nothing answers, before the cluster is given up
_PATIENCE_S = 30.0  # until it is said that no machine has loaded the model yet


@dataclass(eq=False)
class _Actor:
    """A machine's actor: its node, what it is computing, and the items that it has."""

    node: str
    host: str
    handle: Any
    call: Any  # the reference of the call that is under way; None if it waits for items
    machine: Machine | None = None  # once it has loaded the model
    keys: dict[Hashable, None] = field(default_factory=dict)  # in the order that they were given


class Pool:
    """The machines of a Ray cluster that have the model; a context manager.

    Each makes a `worker` of the arguments. `say` is told which machines take part, and which do
    not and why; `noun` is what it calls the items. Work begins with the first machine. All must
    have the model file with this fingerprint, by default the first machine's.

    Raises UsageError where Ray is missing or of another version, or no cluster answers; and what
    the worker raises if no machine can make one.
    """

    def __init__(
        self,
        address: str,
        worker: type[Worker],
        arguments: dict[str, Any],
        *,
        say: Callable[[str], None],
        noun: str,
        fingerprint: str | None = None,
    ) -> None:
        self._ray = connect(address)
        self._address = address
        self._actor_class = actor_class(worker)
        self._arguments = arguments
        self._say = say
        self._noun = noun
        self._wanted = (fingerprint, "this machine")  # the model file, and who has it
        self._actors: list[_Actor] = []
        self._look_at = 0.0  # when to look for machines again, by time.monotonic()
        self._misses = 0  # looks in a row that nothing answered
        self._starts: collections.Counter[str] = collections.Counter()  # by node
        self._refusal: EdgesppoError | None = None
        try:
            self.first = self._wait_for_first(address)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        while self._actors:
            self._end(self._actors[0])
        self._ray.shutdown()

    @property
    def hosts(self) -> list[str]:
        """The names of the machines that take part."""
        return [actor.machine.host for actor in self._actors if actor.machine is not None]

    @property
    def n_machines(self) -> int:
        """The number of machines, with those that are still loading the model."""
        return len(self._actors)

    @property
    def n_running(self) -> int:
        """The number of items that the machines have."""
        return sum(len(actor.keys) for actor in self._actors)

    def run(
        self,
        keys: Iterable[Hashable],
        read: Callable[[Any], Any],
        *,
        most: int,
        job: Any = None,
        may_begin: Callable[[Any], bool] = lambda _: True,
    ) -> Generator[list[Done], None, None]:
        """What is done, every second at least, until all is; may be nothing.

        The items are what `read` returns for the keys, in this order; a machine has `most` of them
        at a time, and gets the next one once it `may_begin`. If there is a `job`, the workers take
        it first. The result of an item is None if too many machines were lost while they did it.
        Raises what a worker raised, and UsageError if all machines are lost.
        """
        waiting = collections.deque(keys)
        lost: collections.Counter[Hashable] = collections.Counter()
        begun: set[_Actor] = set()
        while waiting or self.n_running:
            if not self._find_machines():
                raise UsageError(
                    "all machines of the Ray cluster are lost; start it again, and give the same "
                    "command, which goes on"
                )
            for actor in self._actors:
                if actor.machine is None or actor.call is not None:
                    continue
                if job is not None and actor not in begun:
                    actor.handle.begin.remote(job)
                begun.add(actor)
                items = []
                while waiting and len(actor.keys) < most and may_begin(waiting[0]):
                    key = waiting.popleft()
                    items.append(read(key))
                    actor.keys[key] = None
                if actor.keys:
                    actor.call = actor.handle.turn.remote(items)
            yield self._collect(waiting, lost)

    def _collect(
        self, waiting: collections.deque[Hashable], lost: collections.Counter[Hashable]
    ) -> list[Done]:
        """What is done by now; what a lost machine had waits again."""
        found: list[Done] = []
        for actor, call in self._wait():
            if actor.machine is None:
                self._take_in(actor, call)
                continue
            try:
                results = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                raise cause(error) from None
            except self._ray.exceptions.RayError:  # of the actor, its node, or what it returned
                found += self._give_back(actor, waiting, lost)
                continue
            self._starts[actor.node] = 0
            for key, result in results:
                if key in actor.keys:
                    del actor.keys[key]
                    found.append((key, result))
        return found

    def _give_back(
        self,
        actor: _Actor,
        waiting: collections.deque[Hashable],
        lost: collections.Counter[Hashable],
    ) -> list[Done]:
        """Let others do the items of a lost machine; those that were lost too often are done."""
        self._end(actor)
        n = len(actor.keys)
        noun = self._noun.removesuffix("s") if n == 1 else self._noun
        self._say(f"{actor.host} is lost; its {n} {noun} will be done again")
        lost.update(list(actor.keys))  # counts each, where a dict would give its values
        waiting.extendleft(key for key in reversed(actor.keys) if lost[key] < TRIES)
        return [(key, None) for key in actor.keys if lost[key] >= TRIES]

    def _wait(self) -> list[tuple[_Actor, Any]]:
        """The actors whose calls have ended, and those calls; waits a second at most."""
        calls = {actor.call: actor for actor in self._actors if actor.call is not None}
        if not calls:  # there is no machine until the cluster answers again
            time.sleep(_POLL_S)
            return []
        done, _ = self._ray.wait([*calls], num_returns=1, timeout=_POLL_S)
        ended = [(calls[call], call) for call in done]
        for actor, _ in ended:
            actor.call = None
        return ended

    def _wait_for_first(self, address: str) -> Any:
        """The first machine that has loaded the model. Raises what kept all from it."""
        started, is_said = time.monotonic(), False
        while not self.hosts and self._find_machines():
            for actor, call in self._wait():
                self._take_in(actor, call)
            if not is_said and time.monotonic() - started > _PATIENCE_S:
                self._say(
                    "no machine has loaded the model yet; each needs a free processor: `ray "
                    "status` shows what is taken"
                )
                is_said = True
        for actor in self._actors:
            if actor.machine is not None:
                return actor.machine
        raise self._refusal or UsageError(
            f"the Ray cluster at {address} has no machines with processors"
        )

    def _find_machines(self) -> bool:
        """Look for machines every few seconds, and at once if there are none.

        Returns whether there are; True, too, while the cluster does not answer.
        """
        if not self._actors and not self._misses:
            self._look_at = 0.0
        self._start_actors()
        return bool(self._actors or self._misses)

    def _start_actors(self) -> None:
        """Start an actor on each machine that has none."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        self._misses = 0 if is_listening(self._address) else self._misses + 1
        if 0 < self._misses < _MISSES:  # what is lost may be one packet
            return
        if self._misses:
            self._actors.clear()  # nobody is there who could end them
            raise UsageError(
                f"the Ray cluster at {self._address} does not answer any more; start it again, and "
                "give the same command, which goes on"
            )
        strategies = self._ray.util.scheduling_strategies
        taken = {actor.node for actor in self._actors}
        for node in self._ray.nodes():
            name = node["NodeID"]
            if not node["Alive"] or name in taken or self._starts[name] >= TRIES:
                continue
            if not node["Resources"].get("CPU"):
                continue
            self._starts[name] += 1
            here = strategies.NodeAffinitySchedulingStrategy(name, soft=False)
            remote = self._ray.remote(self._actor_class)
            handle = remote.options(scheduling_strategy=here, num_cpus=1).remote(**self._arguments)
            host = str(node.get("NodeManagerHostname") or "a machine")
            self._actors.append(_Actor(name, host, handle, handle.describe.remote()))

    def _take_in(self, actor: _Actor, call: Any) -> None:
        """Take in an actor that has loaded the model; leave it out if it could not."""
        try:
            machine = self._ray.get(call)
            self._check(machine)
        except (EdgesppoError, self._ray.exceptions.RayError) as error:
            self._refusal = cause(error)
            if isinstance(error, EdgesppoError) or is_refusal(error):
                self._starts[actor.node] = TRIES  # it would be the same again
            self._end(actor)
            self._say(f"{actor.host} takes no part: {self._refusal}")
            return
        actor.machine = machine
        self._say(f"{machine.host} takes part")

    def _check(self, machine: Machine) -> None:
        """Raise UsageError unless the machine has the others' model."""
        fingerprint, owner = self._wanted
        if fingerprint is None:
            self._wanted = machine.fingerprint, machine.host
        elif machine.fingerprint != fingerprint:
            raise UsageError(
                f"the model {machine.name} of {machine.host} is another file than that of "
                f"{owner}; pull or copy the same there"
            )

    def _end(self, actor: _Actor) -> None:
        """End an actor, which may be lost already."""
        self._actors.remove(actor)
        if self._misses:  # Ray would wait a minute for the cluster
            return
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor.handle)
