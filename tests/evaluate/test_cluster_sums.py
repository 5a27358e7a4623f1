"""The sums of samples that a cluster computes: in order, and not too many of them at a time.

The cluster is in this process (`tests/support/fake_ray.py`).
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgesppo.evaluate.cluster_sums import _in_order
from edgesppo.remote import pool as pool_module
from edgesppo.remote.pool import Pool
from edgesppo.remote.worker import Machine
from tests.support.fake_ray import FakeRay, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

SAMPLES: list[Any] = [([n], f"sample {n}") for n in range(800)]


class Naming:
    """A worker whose sums of a sample are its name."""

    def describe(self) -> Machine:
        """A machine."""
        return Machine("host", "model", "a")

    def begin(self, job: object) -> None:
        """Nothing."""

    def turn(self, samples: list[Any]) -> list[tuple[int, str]]:
        """The names."""
        return [(number, name) for number, (_, name) in samples]


@contextmanager
def pool_of(monkeypatch: pytest.MonkeyPatch, *nodes: Node) -> Iterator[Pool]:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(*nodes))
    monkeypatch.setattr(pool_module, "_LOOK_S", 0.0)
    with Pool("auto", Naming, {}, say=lambda _: None, noun="samples") as pool:
        yield pool


def test_what_came_before_its_turn_waits_and_does_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, fast = Node("slow", pace=1000.0), Node("fast")
    with pool_of(monkeypatch, slow, fast) as pool:
        found: Iterator[Any] = _in_order(pool, SAMPLES)
        assert next(found) == "sample 0"
        assert fast.n_items < 64
        assert [*found] == [name for _, name in SAMPLES[1:]]


def test_a_machine_of_a_third_of_the_pace_holds_no_other_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, fast = Node("slow", pace=3.0), Node("fast")
    with pool_of(monkeypatch, slow, fast) as pool:
        assert len([*_in_order(pool, SAMPLES)]) == len(SAMPLES)
    assert fast.n_items > 2.5 * slow.n_items


def test_machines_that_are_lost_change_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [True, False] * 12
    nodes = [
        Node(name, pace, lambda method, _: method == "turn" and bool(left) and left.pop())
        for name, pace in (("a", 1.0), ("b", 3.0), ("c", 9.0), ("d", 27.0))
    ]
    with pool_of(monkeypatch, *nodes) as pool:
        assert [*_in_order(pool, SAMPLES)] == [name for _, name in SAMPLES]
