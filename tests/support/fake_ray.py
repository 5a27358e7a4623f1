"""The module `ray` as far as a pool uses it: a cluster in this process, with a time of its own.

Each machine does its calls one after another, at its own pace; `wait` gives the call that ends
first. A machine can refuse to make a worker, and be lost at a call.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class RayError(Exception):
    """Whatever Ray raises."""


class RayActorError(RayError):
    """An actor is lost, or could not be made."""


class RayTaskError(RayError):
    """A call of an actor has raised its `cause`."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass
class Node:
    """A machine: how long it takes for an item, and at which of its calls it is lost."""

    name: str
    pace: float = 1.0
    lost_at: Callable[[str, list[Any]], bool] = lambda _method, _items: False
    n_cpus: int = 1
    clock: float = 0.0
    n_items: int = 0
    n_actors: int = 0
    killed: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class _Call:
    actor: _Actor
    method: str
    arguments: tuple[Any, ...]
    ends: float


class _Actor:
    """The handle of an actor; its object is made by its first call."""

    def __init__(self, node: Node, make: Callable[[], Any]) -> None:
        self._node = node
        self._make = make
        self._made: Any = None

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._begin(method, arguments))

    def _begin(self, method: str, arguments: tuple[Any, ...]) -> _Call:
        items = arguments[0] if method == "turn" else []
        self._node.clock += self._node.pace * max(1, len(items))
        call = _Call(self, method, arguments, self._node.clock)
        if method == "begin":
            self.get(call)
        return call

    def get(self, call: _Call) -> Any:
        """What the call returns."""
        items = call.arguments[0] if call.method == "turn" else []
        if self._node.lost_at(call.method, items):
            raise RayActorError("The actor died unexpectedly")
        if self._made is None:
            try:
                self._made = self._make()
            except Exception as error:
                told = "".join(traceback.format_exception(error))
                raise RayActorError(
                    f"The actor died because of an error raised in its creation task, {told}"
                ) from None
        try:
            found = getattr(self._made, call.method)(*call.arguments)
        except Exception as error:
            raise RayTaskError(error) from None
        self._node.n_items += len(items)
        return found


class FakeRay:
    """A cluster of these nodes."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayActorError=RayActorError, RayTaskError=RayTaskError
    )
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda name, **_: name)
    )

    def __init__(self, *nodes: Node) -> None:
        self.all = list(nodes)
        self.is_connected = False

    def init(self, **_: Any) -> None:
        """Connect."""
        self.is_connected = True

    def shutdown(self) -> None:
        """Leave."""
        self.is_connected = False

    def nodes(self) -> list[dict[str, Any]]:
        """The machines, as Ray lists them."""
        return [
            {
                "NodeID": node.name,
                "NodeManagerHostname": node.name,
                "Alive": True,
                "Resources": {"CPU": node.n_cpus} if node.n_cpus else {},
            }
            for node in self.all
        ]

    def remote(self, made: type[Any]) -> Any:
        """A class whose objects are actors."""

        def options(*, scheduling_strategy: str, num_cpus: int) -> Any:
            assert num_cpus == 1
            (node,) = (node for node in self.all if node.name == scheduling_strategy)
            node.n_actors += 1
            return SimpleNamespace(remote=lambda **given: _Actor(node, lambda: made(**given)))

        return SimpleNamespace(options=options)

    def wait(self, calls: list[_Call], **_: Any) -> tuple[list[_Call], list[_Call]]:
        """The call that ends first, and the others."""
        first = min(calls, key=lambda call: call.ends)
        return [first], [call for call in calls if call is not first]

    def get(self, call: _Call) -> Any:
        """What a call returns."""
        return call.actor.get(call)

    def kill(self, actor: _Actor) -> None:
        """End an actor."""
        actor._node.killed.append(actor)
