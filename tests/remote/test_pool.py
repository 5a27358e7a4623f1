"""The machines of a cluster share items out: each once, whatever becomes of the machines.

The cluster is in this process (`tests/support/fake_ray.py`); `tests/batches/test_cluster.py` has
real ones.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import BadModelFile, UsageError
from edgesppo.remote import pool as pool_module
from edgesppo.remote import worker as worker_module
from edgesppo.remote.pool import TRIES, Pool
from edgesppo.remote.worker import Machine
from tests.support.fake_ray import FakeRay, Node

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = range(60)


class Doubler:
    """A worker that doubles numbers, or adds the job to them."""

    made = 0

    def __init__(self, fingerprints: list[str]) -> None:
        Doubler.made += 1
        self._fingerprint = fingerprints.pop(0) if len(fingerprints) > 1 else fingerprints[0]
        self._job: int | None = None

    def describe(self) -> Machine:
        """A machine with the next of the fingerprints."""
        return Machine(f"host{Doubler.made}", "model", self._fingerprint)

    def begin(self, job: int) -> None:
        """Add this."""
        self._job = job

    def turn(self, items: list[int]) -> list[tuple[int, int]]:
        """What is made of each."""
        if -1 in items:
            raise BadModelFile("it overflows")
        return [(n, 2 * n if self._job is None else n + self._job) for n in items]


class Refusing(Doubler):
    """A worker that cannot be made."""

    def __init__(self, **_: Any) -> None:
        raise BadModelFile("the model is not what the lock says")


class Started:
    """A pool of these machines, and what it said."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *nodes: Node,
        worker: type[Doubler] = Doubler,
        models: tuple[str, ...] = ("a",),
        fingerprint: str | None = None,
    ) -> None:
        self.ray = FakeRay(*nodes)
        self.said: list[str] = []
        monkeypatch.setitem(sys.modules, "ray", self.ray)
        monkeypatch.setattr(pool_module, "_LOOK_S", 0.0)
        Doubler.made = 0
        self.pool = Pool(
            *("auto", worker, {"fingerprints": [*models]}),
            say=self.said.append,
            noun="numbers",
            fingerprint=fingerprint,
        )

    def run(self, keys: Any = KEYS, **more: Any) -> list[tuple[Any, Any]]:
        """What is done for the keys, in the order in which it comes."""
        return [one for done in self.pool.run(keys, lambda n: n, most=4, **more) for one in done]


def lost_when(*conditions: bool) -> Callable[[str, list[Any]], bool]:
    """Whether a machine is lost at its first turns, one after the other."""
    left = [*conditions]
    return lambda method, _: method == "turn" and bool(left) and left.pop(0)


def test_each_item_is_done_once_and_a_slow_machine_gets_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, fast = Node("slow", pace=5.0), Node("fast")
    started = Started(monkeypatch, slow, fast, Node("no processors", n_cpus=0))
    assert sorted(started.run()) == [(n, 2 * n) for n in KEYS]
    assert slow.n_items + fast.n_items == len(KEYS)
    assert 0 < slow.n_items < fast.n_items / 2
    assert started.said == ["host1 takes part", "host2 takes part"]
    assert sorted(started.run(range(3), job=10)) == [(0, 10), (1, 11), (2, 12)]
    started.pool.close()
    assert (len(slow.killed), len(fast.killed), started.ray.is_connected) == (1, 1, False)


def test_what_a_lost_machine_had_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ok, bad = Node("ok"), Node("bad", lost_at=lost_when(False, True, False))
    started = Started(monkeypatch, ok, bad)
    assert sorted(started.run()) == [(n, 2 * n) for n in KEYS]
    assert started.said[2:] == [
        "bad is lost; its 4 numbers will be done again",
        "host3 takes part",  # the same machine, with a new actor
    ]
    assert (bad.n_actors, len(bad.killed)) == (2, 1)


def test_a_machine_that_is_lost_as_it_loads_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [True, True]
    bad = Node("bad", lost_at=lambda method, _: method == "describe" and bool(left) and left.pop())
    started = Started(monkeypatch, bad)
    assert bad.n_actors == TRIES
    assert started.said[0] == "bad takes no part: Ray: The actor died unexpectedly"
    assert len(started.run()) == len(KEYS)


def test_an_item_that_costs_every_machine_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Node(name, lost_at=lambda _, items: 7 in items) for name in "abc"]
    started = Started(monkeypatch, *nodes)
    found = started.run()
    assert {key for key, _ in found} == {*KEYS}
    assert len(found) == len(KEYS)
    given_up = {key for key, result in found if result is None}
    assert 7 in given_up
    assert len(given_up) <= 4  # those that were beside it all the time


def test_machines_that_are_all_lost_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [True]
    always = Node("a", lost_at=lambda method, _: method == "turn" or not (left and left.pop()))
    started = Started(monkeypatch, always)
    with pytest.raises(UsageError, match=r"all machines .* are lost; .* the same command"):
        started.run()
    assert always.n_actors <= TRIES + 1


def test_a_cluster_that_does_not_answer_any_more_ends_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node("a")
    started = Started(monkeypatch, node)
    monkeypatch.setattr(pool_module, "is_listening", lambda _: False)
    with pytest.raises(UsageError, match=r"does not answer any more; .* the same command"):
        started.run()
    started.pool.close()
    assert node.killed == []  # Ray would wait a minute for that


def test_a_cluster_that_does_not_answer_for_a_moment_ends_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node("a", lost_at=lost_when(True))  # while the cluster does not answer
    started = Started(monkeypatch, node)
    answers = [False, False, False, True, False, False, False]
    monkeypatch.setattr(pool_module, "is_listening", lambda _: not answers or answers.pop(0))
    monkeypatch.setattr(pool_module, "_POLL_S", 0.0)
    assert sorted(started.run()) == [(n, 2 * n) for n in KEYS]
    assert (answers, node.n_actors, node.killed) == ([], 2, [])


def test_connecting_leaves_the_handlers_of_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        FakeRay, "init", lambda *_, **__: signal.signal(signal.SIGTERM, signal.SIG_IGN)
    )
    Started(monkeypatch, Node("a"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_machine_without_the_same_model_takes_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Node("a"), Node("b")]
    started = Started(monkeypatch, *nodes, models=("x", "y"))
    assert len(started.run()) == len(KEYS)
    assert started.said[1] == (
        "b takes no part: the model model of host2 is another file than that of host1; pull or "
        "copy the same there"
    )
    assert [node.n_actors for node in nodes] == [1, 1]
    with pytest.raises(UsageError, match="another file than that of this machine"):
        Started(monkeypatch, Node("a"), fingerprint="z")


def test_machines_that_cannot_load_the_model_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node("a")
    with pytest.raises(UsageError, match="the model is not what the lock says"):
        Started(monkeypatch, node, worker=Refusing)
    assert node.n_actors == 1
    with pytest.raises(UsageError, match="has no machines with processors"):
        Started(monkeypatch, Node("a", n_cpus=0))


def test_a_machine_with_another_version_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "__version__", "0")
    with pytest.raises(UsageError, match=r"has edgesppo .*, this machine 0; install"):
        Started(monkeypatch, Node("a"))
    assert Doubler.made == 0


def test_an_error_of_a_worker_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, Node("a"))
    with pytest.raises(BadModelFile, match="it overflows"):
        started.run([1, -1])


def test_an_item_is_not_begun_before_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, Node("slow", pace=100.0), Node("fast"))
    found: list[Any] = []

    def may_begin(key: int) -> bool:
        return key < len(found) + 10

    for done in started.pool.run(KEYS, lambda n: n, most=4, may_begin=may_begin):
        found += done
        assert started.pool.n_running <= 10
    assert sorted(found) == [(n, 2 * n) for n in KEYS]


def test_a_machine_that_comes_later_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, Node("slow", pace=3.0))
    late = Node("late", pace=0.1)
    found = []
    for done in started.pool.run(KEYS, lambda n: n, most=4):
        found += done
        if late not in started.ray.all:
            started.ray.all.append(late)
    assert sorted(found) == [(n, 2 * n) for n in KEYS]
    assert late.n_items > 0
    assert started.said == ["host1 takes part", "host2 takes part"]
