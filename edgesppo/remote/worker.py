"""`Worker`: what a machine of a Ray cluster does, and the class that Ray makes an actor of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from edgesppo._version import __version__

# An item's key and its result.
Done: TypeAlias = tuple[Any, Any]


@dataclass(frozen=True)
class Machine:
    """A machine and the model that it loaded, by its name and its file's fingerprint."""

    host: str
    name: str
    fingerprint: str


class Worker(Protocol):
    """What a machine does: a class that is made there, and that imports no Ray."""

    def describe(self) -> Machine:
        """This machine and its model."""

    def begin(self, job: Any, /) -> None:
        """Take what the items of a run have in common."""

    def turn(self, items: list[Any], /) -> list[Done]:
        """Take more items, and return what is done by now: at least one item."""


def actor_class(worker: type[Worker]) -> type[Any]:
    """The class of which Ray makes actors: a worker, if that machine has our version.

    It is made here so that Ray sends its code instead of its name: another version of edgesppo, or
    none at all, is then found before anything else is asked of it.
    """
    module, name, version = worker.__module__, worker.__name__, __version__

    class Actor:
        def __init__(self, **arguments: Any) -> None:
            import importlib
            import socket

            from edgesppo._version import __version__ as found
            from edgesppo.errors import UsageError

            if found != version:
                raise UsageError(
                    f"{socket.gethostname()} has edgesppo {found}, this machine {version}; "
                    "install the same there"
                )
            self._worker = getattr(importlib.import_module(module), name)(**arguments)

        def describe(self) -> Any:
            return self._worker.describe()

        def begin(self, job: Any) -> None:
            self._worker.begin(job)

        def turn(self, items: list[Any]) -> Any:
            return self._worker.turn(items)

    Actor.__name__ = Actor.__qualname__ = name  # what the machine's list of processes shows
    return Actor
