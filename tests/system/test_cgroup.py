"""The limits of control groups: a container's, a systemd unit's, and those above them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo.system import cgroup, hardware

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the groups, where this process is in the unit `app`."""
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "_OWN", tmp_path / "own")
    (tmp_path / "own").write_text("4:memory:/elsewhere\n0::/system.slice/app.service\n")
    (tmp_path / "system.slice" / "app.service").mkdir(parents=True)
    return tmp_path


def limit(folder: Path, most: str, used: int = 0, stat: str = "") -> None:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


def test_pages_of_files_can_be_dropped_but_not_those_of_tmpfs(root: Path) -> None:
    limit(root, "1000000", 700_000, "anon 100000\nfile 500000\nshmem 200000\n")
    assert cgroup.available_memory() == 600_000
    assert (hardware.available_memory() or 0) <= 600_000


def test_the_least_limit_of_all_groups_above_holds(root: Path) -> None:
    unit = root / "system.slice" / "app.service"
    limit(unit, "5000000", 1_000_000)
    limit(unit.parent, "2000000", 1_500_000)
    limit(root, "max")
    assert cgroup.available_memory() == 500_000
    assert cgroup.memory_limit() == 2_000_000
    (unit / "memory.high").write_text("1200000\n")
    assert (cgroup.memory_limit(), cgroup.available_memory()) == (1_200_000, 200_000)
    (unit / "cpu.max").write_text("150000 100000\n")
    (unit.parent / "cpu.max").write_text("max 100000\n")
    assert cgroup.cpu_quota() == 2


def test_a_group_that_is_not_there_limits_nothing(root: Path) -> None:
    (root / "own").write_text("0::/../../somewhere\n")
    assert cgroup.available_memory() is cgroup.memory_limit() is cgroup.cpu_quota() is None
    (root / "own").unlink()
    limit(root, "100", 200)
    assert cgroup.available_memory() == 0


def test_the_limits_of_version_1_hold_too(root: Path) -> None:
    (root / "own").write_text("4:memory:/docker/7f\n3:cpu,cpuacct:/docker/7f\n1:name=systemd:/\n")
    memory, cpu = root / "memory" / "docker" / "7f", root / "cpu"
    memory.mkdir(parents=True)
    cpu.mkdir()
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (memory / "memory.usage_in_bytes").write_text("700000\n")
    (memory / "memory.stat").write_text("cache 1\ntotal_cache 500000\ntotal_shmem 200000\n")
    (cpu / "cpu.cfs_quota_us").write_text("-1\n")
    (cpu / "cpu.cfs_period_us").write_text("100000\n")
    assert cgroup.available_memory() is cgroup.memory_limit() is cgroup.cpu_quota() is None
    (memory / "memory.limit_in_bytes").write_text("1000000\n")
    (cpu / "cpu.cfs_quota_us").write_text("150000\n")
    assert cgroup.available_memory() == 600_000
    assert cgroup.memory_limit() == 1_000_000
    assert cgroup.cpu_quota() == 2, "of the root: a container sees its own group there"
