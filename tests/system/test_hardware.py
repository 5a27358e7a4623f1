"""Processors of each kind are counted within CPU affinity and a container's limits."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest

from edgesppo.system import cgroup, hardware, windows

if TYPE_CHECKING:
    from pathlib import Path

# Two fast cores of two hyper-threads each (0-3), and four slow ones (4-7).
SIBLINGS = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5", 6: "6", 7: "7"}


@pytest.fixture
def hybrid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with those processors and no container limit."""
    for cpu, siblings in SIBLINGS.items():
        folder = tmp_path / "cpu" / f"cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology" / "thread_siblings_list").write_text(siblings + "\n")
        (folder / "cpufreq").mkdir()
        frequency = 5_000_000 if cpu < 4 else 3_600_000
        (folder / "cpufreq" / "cpuinfo_max_freq").write_text(f"{frequency}\n")
    monkeypatch.setattr(hardware, "_CPUS", tmp_path / "cpu")
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(hardware.sys, "platform", "linux")
    allow(monkeypatch, set(SIBLINGS))
    return tmp_path


def allow(monkeypatch: pytest.MonkeyPatch, cpus: set[int]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus, raising=False)


@pytest.mark.usefixtures("hybrid")
def test_fast_cores_all_cores_and_hyper_threads_are_worth_trying() -> None:
    assert hardware.thread_choices() == [2, 6, 8]
    assert hardware.cores() == 6
    assert hardware.usable_cpus() == 8


@pytest.mark.usefixtures("hybrid")
def test_only_the_processors_of_the_affinity_count(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, {0, 1, 4})
    assert hardware.thread_choices() == [1, 2, 3]
    allow(monkeypatch, {5, 6})
    assert hardware.thread_choices() == [2]


def test_a_container_quota_limits_every_choice(hybrid: Path) -> None:
    (hybrid / "cgroup").mkdir()
    (hybrid / "cgroup" / "cpu.max").write_text("350000 100000\n")
    assert hardware.thread_choices() == [2, 4]
    assert hardware.cores() == hardware.usable_cpus() == 4


def test_arms_own_capacity_is_preferred_to_the_frequency(hybrid: Path) -> None:
    for cpu in SIBLINGS:
        capacity = 1024 if cpu >= 6 else 400
        (hybrid / "cpu" / f"cpu{cpu}" / "cpu_capacity").write_text(f"{capacity}\n")
    assert hardware.thread_choices() == [2, 6, 8]


def test_a_machine_without_topology_counts_its_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_CPUS", tmp_path)
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    allow(monkeypatch, {0, 1, 2})
    assert hardware.thread_choices() == [3]


def test_the_machine_name_is_stable_and_has_the_number_of_processors() -> None:
    assert hardware.name() == hardware.name()
    assert f"x{os.cpu_count()}" in hardware.name()


def test_windows_is_handed_structures_of_the_size_that_it_expects() -> None:
    assert ctypes.sizeof(windows.SystemMemory) == 64
    assert ctypes.sizeof(windows.ProcessMemory) == 72


@pytest.mark.skipif(os.name != "nt", reason="asks Windows")
def test_windows_tells_how_much_memory_there_is() -> None:
    free, total = hardware.available_memory(), hardware.total_memory()
    resident, peak = hardware.resident_memory(), hardware.peak_memory()
    assert free is not None
    assert resident is not None
    assert peak is not None
    assert 0 < resident <= peak < total
    assert 0 < free < total
