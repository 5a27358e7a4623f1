"""`Cluster`: the machines of a Ray cluster, which answer the rows of a batch together.

Each machine has one actor, which loads the model from the machine's own store. It has a few rows
at a time and gets more as it returns results, so a slow machine gets fewer. What a lost machine
had is done again elsewhere; results are counted once.
"""

from __future__ import annotations

import collections
import importlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesppo._version import __version__
from edgesppo.batches import result
from edgesppo.batches.machine import Machine, MachineWorker, SentRow
from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from types import TracebackType

    from edgesppo.batches.input import Key, Place
    from edgesppo.batches.result import BatchResult
    from edgesppo.batches.work import Counts, Report, Work

_INSTALL = 'pip install "edgesppo[ray]"'
_LEASES = 2  # rows of a machine, for each answer that it computes at once
_TRIES = 3  # of a row whose machines are lost, and of a machine whose actor is
_POLL_S = 1.0
_VERSIONS = re.compile(r"Ray: *(\S+)\s+Python: *(\S+)")


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

    `say` is told which machines take no part, and why. Raises UsageError where Ray is missing or
    of another version, or no cluster answers; and what `load` raises if no machine has the model.
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
        self._ray = _connect(address)
        self._arguments = (model, parallel, loading)
        self._parallel = parallel
        self._say = say
        self._actors: list[_Actor] = []
        self._starts: collections.Counter[str] = collections.Counter()  # by node
        self._model: Machine | None = None  # the first machine's, which the others must have, too
        self._refusal: EdgesppoError | None = None
        try:
            self._start_actors()
            while any(actor.machine is None for actor in self._actors):
                self._welcome()
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
        self._welcome(timeout=0)
        calls = {actor.call: actor for actor in self._actors if actor.machine is not None}
        calls.pop(None, None)
        if not calls and not self._actors:
            raise UsageError("all machines of the Ray cluster are lost")
        done, _ = self._ray.wait([*calls], num_returns=1, timeout=_POLL_S) if calls else ([], [])
        for call in done:
            actor = calls[call]
            actor.call = None
            try:
                yield actor, self._ray.get(call)
            except self._ray.exceptions.RayActorError:
                yield actor, None
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from None

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
        """Start an actor on each machine that has none."""
        strategies = importlib.import_module("ray.util.scheduling_strategies")
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

    def _welcome(self, timeout: float = _POLL_S) -> None:
        """Take in the actors that have loaded the model; leave out those that cannot."""
        calls = {actor.call: actor for actor in self._actors if actor.machine is None}
        done, _ = self._ray.wait([*calls], num_returns=1, timeout=timeout) if calls else ([], [])
        for call in done:
            actor = calls[call]
            actor.call = None
            try:
                self._check(self._ray.get(call))
                actor.machine = self._ray.get(call)
            except (EdgesppoError, self._ray.exceptions.RayError) as error:
                self._refusal = _cause(error)
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


def _connect(address: str) -> Any:
    """Connect to a cluster; returns the module `ray`. Raises UsageError."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise UsageError(f"Ray is not installed on this machine: {_INSTALL}") from None
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ConnectionError:
        raise UsageError(
            f"no Ray cluster answers at {address}; start one with `ray start --head --port 6379`, "
            "on each other machine `ray start --address HOST:6379`, and give HOST:6379"
        ) from None
    except RuntimeError as error:
        versions = _VERSIONS.findall(str(error))
        if len(versions) < 2:
            raise UsageError(f"Ray at {address}: {one_line(str(error))[:300]}") from None
        (theirs, python), (ours, our_python) = versions[:2]
        raise UsageError(
            f"the cluster at {address} runs Ray {theirs} with Python {python}, this machine Ray "
            f'{ours} with Python {our_python}; on this machine: pip install "ray=={theirs}", or '
            "the same Ray and Python on all machines"
        ) from None
    return ray


def _cause(error: BaseException) -> EdgesppoError:
    """Our own error that a machine raised; or what Ray says of it."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, EdgesppoError):
        return cause
    text = str(error)
    if "No module named 'edgesppo'" in text:
        return UsageError(f"edgesppo is not installed there: {_INSTALL}")
    for line in reversed(text.splitlines()):
        if line.strip().startswith("edgesppo.errors."):
            return UsageError(one_line(line.partition(": ")[2]))
    return UsageError(f"Ray: {one_line(text)[:300]}")


def _count(counts: Counts, one: BatchResult) -> None:
    counts.done += 1
    counts.errors += one.error is not None
    usage = one.usage
    counts.prompt_tokens += usage.get("prompt_tokens", 0)
    details = usage.get("prompt_tokens_details", usage)
    counts.cached_tokens += details.get("cached_tokens", 0)
    counts.completion_tokens += usage.get("completion_tokens", 0)
