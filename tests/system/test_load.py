"""What other programs use of the processors, from counters of the system that the test writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgesppo.system import cgroup, hardware, load

if TYPE_CHECKING:
    from pathlib import Path

# A fixture of the session replaces both.
REAL, REAL_NOW = load.LoadMeter.others, load.others


class System:
    """Counters of four processors; the process may use the first two, unless the test says so."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stat = folder / "stat"
        self.ticks = [[0] * 10 for _ in range(4)]
        self.now = self.own = 0.0
        self.allowed = {0, 1}
        monkeypatch.setattr(load, "_STAT", self.stat)
        monkeypatch.setattr(load.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(load.time, "process_time", lambda: self.own)
        monkeypatch.setattr(hardware, "allowed_cpus", lambda: self.allowed)
        monkeypatch.setattr(cgroup, "_ROOT", folder)
        self.write()

    def write(self) -> None:
        lines = ["cpu  " + " ".join(str(sum(of)) for of in zip(*self.ticks, strict=True))]
        lines += [f"cpu{n} " + " ".join(map(str, of)) for n, of in enumerate(self.ticks)]
        self.stat.write_text("\n".join([*lines, "intr 5 0", "ctxt 9", ""]))

    def second(self, *busy: float, own: float = 0.0) -> None:
        """A second passes, in which the processors are busy for these shares."""
        self.now += 1.0
        self.own += own
        for ticks, share in zip(self.ticks, busy, strict=False):
            ticks[0] += round(100 * share)
            ticks[3] += round(100 - 100 * share)
        self.write()


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setattr(load.LoadMeter, "others", REAL)
    return System(tmp_path, monkeypatch)


def test_what_is_neither_idle_nor_our_own_is_used_by_others(system: System) -> None:
    meter = load.LoadMeter()
    system.second(1.0, 0.5, own=0.5)
    assert meter.others() == pytest.approx(0.5)
    system.second(1.0, 1.0, own=2.0)
    assert meter.others() == pytest.approx(0.0)
    system.second(0.2, 0.0)
    assert meter.others() == pytest.approx(0.1)


def test_only_the_processors_of_the_affinity_count(system: System) -> None:
    meter = load.LoadMeter()
    system.second(0.0, 0.0, 1.0, 1.0)
    assert meter.others() == 0.0
    system.allowed = {2, 3}
    meter = load.LoadMeter()
    system.second(0.0, 0.0, 1.0, 1.0)
    assert meter.others() == 1.0


def test_under_a_quota_counts_what_is_left_of_it(system: System, tmp_path: Path) -> None:
    system.allowed = {0, 1, 2, 3}
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    meter = load.LoadMeter()
    system.second(1.0, 1.0, 1.0, 0.0)
    assert meter.others() == 0.0, "one processor is free, and no more are allowed"
    system.second(1.0, 1.0, 1.0, 0.5)
    assert meter.others() == pytest.approx(0.5)


def test_waiting_for_a_disk_is_no_use_of_a_processor(system: System) -> None:
    meter = load.LoadMeter()
    system.now += 1.0
    for ticks in system.ticks:
        ticks[4] += 100
    system.write()
    assert meter.others() == 0.0


@pytest.mark.parametrize("content", [b"", b"cpu0 1 2 x\n", b"cpu0\n", b"cpu0 1\n", None])
def test_without_counters_the_average_of_running_threads_is_taken(
    system: System, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.stat.unlink()
    if content is not None:
        system.stat.write_bytes(content)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 9.0, 9.0), raising=False)
    meter = load.LoadMeter()
    system.now, system.own = 1.0, 0.5
    assert meter.others() == pytest.approx(0.5)
    monkeypatch.delattr(os, "getloadavg")
    system.now = 2.0
    assert meter.others() is None


def test_a_time_too_short_to_measure_is_unknown_and_loses_nothing(system: System) -> None:
    meter = load.LoadMeter()
    assert meter.others() is None
    system.now = 0.001
    assert meter.others() is None
    system.second(1.0, 1.0)
    assert meter.others() == 1.0


def test_before_and_during_are_measured_apart(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load.time, "sleep", lambda _: system.second(0.5, 0.5))
    monkeypatch.setattr(load, "others", REAL_NOW)
    watch = load.LoadWatch()
    system.second(0.0, 0.4)
    watch.stop()
    assert (watch.before, watch.during) == (pytest.approx(0.5), pytest.approx(0.2))
    assert load.most(watch.before, watch.during, None) == pytest.approx(0.5)
    assert load.most(None) == 0.0


def test_this_machine_tells_something_between_nothing_and_all() -> None:
    share = REAL_NOW()
    assert share is None or 0 <= share <= 1
