"""Batches over a Ray cluster of several raylets on this machine: every row exactly once.

What needs a cluster runs with EDGESPPO_LONG=1 and Ray installed.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.batches.cluster import Cluster
from edgesppo.batches.input import open_rows
from edgesppo.batches.machine import MachineWorker, SentRow
from edgesppo.batches.recipe import Recipe
from edgesppo.batches.request import BadRow, Label, read_labels
from edgesppo.errors import BadModelFile, UsageError
from edgesppo.evaluate.importance import read_sums
from edgesppo.lockfile import layers
from edgesppo.remote.ray_connection import connect
from edgesppo.store import verify
from tests.support.command_line import run, started
from tests.support.ray_processes import actors
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

N_ROWS = 240


def test_without_ray_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "in.jsonl").write_text('"Hi"')
    words = ["batch", "demo", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--ray", "host:6379"]
    result = run(*words)
    assert result.exit_code == 1
    assert 'not installed on this machine: in the clone, pip install ".[ray]"' in result.stderr
    assert run("batch", tmp_path / "in.jsonl", tmp_path / "o", "--ray", "host:6379").exit_code == 2


class _Ray:
    """The module `ray` as far as connecting goes; it cannot connect."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def init(self, **_: Any) -> None:
        raise self._error


OTHER_VERSION = RuntimeError(
    "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.9.1\n"
    "This process on node 1.2.3.4 was started with:\n    Ray: 2.60.0\n    Python: 3.11.2\n"
)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OTHER_VERSION, 'runs Ray 2.9.0 with Python 3.9.1, .*pip install "ray==2.9.0"'),
        (ConnectionError("no"), "no Ray cluster answers at auto; start one with `ray start"),
        (RuntimeError("else"), "Ray at auto: else"),
        (
            ValueError("Invalid address format: auto"),
            "--ray is 'auto', expected HOST:6379",
        ),
    ],
)
def test_a_ray_that_cannot_be_used_says_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, named: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", _Ray(error))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=named):
        connect("auto")


def test_an_address_where_nothing_listens_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", _Ray(AssertionError("Ray would try for minutes")))  # type: ignore[arg-type]
    with socket.socket() as bound:  # nobody listens on it
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"no Ray cluster answers at {address}"):
            connect(address)


def test_a_machine_answers_the_rows_that_it_is_sent(demo_gguf: Path) -> None:
    worker = MachineWorker(str(demo_gguf), 2, {})
    with open_rows(["Hello", {"promt": 1}, "Who are you?"]) as rows:
        labels = read_labels(rows, rows.places)
        sent = [SentRow(place, labels[place.row], rows.read(place)) for place in rows.places]
        worker.begin(Recipe({"temperature": 0, "max_tokens": 4}))
        found = []
        for part in (pickle.loads(pickle.dumps(sent[:2])), sent[2:]):
            found += [one for _, one in worker.turn(part)]
        while len(found) < 3:
            found += [one for _, one in worker.turn([])]
    assert sorted(result.row for result in found) == [1, 2, 3]
    assert pickle.loads(pickle.dumps(found[0])) == found[0]
    assert worker.describe().name == demo_gguf.stem


def test_a_machine_checks_its_files_against_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = layers.read().models["demo"]
    assert all(file.is_sound for file in verify.check(entry))
    monkeypatch.setattr(verify.CheckedFile, "is_sound", property(lambda _: False))
    with pytest.raises(BadModelFile, match="not what the lock says of demo"):
        MachineWorker("demo", 1, {})


def test_a_bad_row_can_be_sent_to_another_machine() -> None:
    fault = pickle.loads(pickle.dumps(Label(fault=BadRow("why", "code")))).fault
    assert (str(fault), fault.code) == ("why", "code")


@pytest.fixture(scope="module")
def raylets() -> Iterator[Any]:
    """A cluster of a head and two more raylets."""
    if not LONG:
        pytest.skip("a cluster takes a minute; EDGESPPO_LONG=1")
    utilities = pytest.importorskip("ray.cluster_utils")
    options = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = utilities.Cluster(
        initialize_head=True, head_node_args={**options, "include_dashboard": False}
    )
    cluster.others = [cluster.add_node(**options) for _ in range(2)]
    yield cluster
    cluster.shutdown()


@pytest.fixture
def command(raylets: Any, demo_gguf: Path, tmp_path: Path) -> list[str]:
    """A batch of many rows on the cluster, as a command."""
    rows = [
        json.dumps({"custom_id": f"r{n}", "prompt": f"My number is {n}."}) for n in range(N_ROWS)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    files = [str(demo_gguf), str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    options = ["--ray", raylets.address, "--max-tokens", "30"]
    return [sys.executable, "-m", "edgesppo", "batch", *files, *options]


def assert_every_row_once(out: Path) -> None:
    found = [json.loads(line)["custom_id"] for line in out.read_text("utf-8").splitlines()]
    assert sorted(found) == sorted(f"r{n}" for n in range(N_ROWS))


def wait_for_lines(out: Path, n: int) -> None:
    for _ in range(12_000):
        if out.exists() and out.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.01)
    raise AssertionError(f"{out} has no {n} lines after two minutes")


def test_an_actor_that_is_killed_costs_no_row(command: list[str], tmp_path: Path) -> None:
    with started(command, stderr=subprocess.PIPE) as process:
        wait_for_lines(tmp_path / "out.jsonl", 5)
        os.kill(actors("MachineWorker")[0], signal.SIGKILL)
        told = process.communicate()[1].decode()
    assert process.returncode == 0, told
    # Which it says depends on whether that one had loaded the model already.
    assert "will be done again" in told or "takes no part" in told
    assert_every_row_once(tmp_path / "out.jsonl")


def test_a_driver_that_is_killed_goes_on(command: list[str], tmp_path: Path) -> None:
    with started(command) as process:
        wait_for_lines(tmp_path / "out.jsonl", 5)
        process.kill()
    done = subprocess.run(command, capture_output=True, check=True)
    assert b"rows are in" in done.stderr
    assert_every_row_once(tmp_path / "out.jsonl")


def test_a_raylet_that_stops_costs_no_row(raylets: Any, command: list[str], tmp_path: Path) -> None:
    with started(command, stderr=subprocess.PIPE) as process:
        wait_for_lines(tmp_path / "out.jsonl", 5)
        raylets.remove_node(raylets.others.pop())
        told = process.communicate()[1].decode()
    assert process.returncode == 0, told
    assert_every_row_once(tmp_path / "out.jsonl")


def test_a_model_that_no_machine_has_is_said(raylets: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"Hi"')
    words = ["batch", "nosuch", tmp_path / "in.jsonl", tmp_path / "out.jsonl"]
    result = run(*words, "--ray", raylets.address)
    assert result.exit_code == 1
    assert "nosuch" in result.stderr


def test_a_cluster_is_left_as_it_was(raylets: Any, demo_gguf: Path) -> None:
    said: list[str] = []
    arguments: dict[str, Any] = {"parallel": 2, "loading": {}, "say": said.append}
    for _ in range(2):
        with Cluster(raylets.address, str(demo_gguf), **arguments) as cluster:
            assert len(cluster.hosts) >= 1
    assert all(line.endswith("takes part") for line in said)


def test_calibration_on_a_cluster_is_what_it_is_here(
    raylets: Any, demo_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("What is 2 plus 3? 2 plus 3 is 5. Hello! " * 40)
    words = ["calibrate", demo_gguf, "--text", tmp_path / "text.txt", "--n-ctx", "64", "-o"]
    there = run(*words, tmp_path / "there.gguf", "--ray", raylets.address)
    assert there.exit_code == 0, there.stderr
    assert run(*words, tmp_path / "here.gguf").exit_code == 0
    here = read_sums(tmp_path / "here.gguf")
    for weight, entry in read_sums(tmp_path / "there.gguf").entries.items():
        assert entry.count == here.entries[weight].count
        assert entry.sums == pytest.approx(here.entries[weight].sums, rel=1e-3)


def test_a_machine_that_is_lost_costs_a_calibration_no_sample(
    raylets: Any, demo_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("What is 2 plus 3? 2 plus 3 is 5. Hello! " * 400)
    words = ["calibrate", demo_gguf, "--text", tmp_path / "text.txt", "--n-ctx", "64", "-o"]
    command = [sys.executable, "-m", "edgesppo", *words, tmp_path / "there.gguf"]
    with started([*map(str, command), "--ray", raylets.address], stderr=subprocess.PIPE) as process:
        for _ in range(6000):
            if (found := actors("SumsWorker")) or process.poll() is not None:
                break
            time.sleep(0.01)
        os.kill(found[0], signal.SIGKILL)
        told = process.communicate()[1].decode()
    assert process.returncode == 0, told
    assert run(*words, tmp_path / "here.gguf").exit_code == 0
    here = read_sums(tmp_path / "here.gguf")
    there = read_sums(tmp_path / "there.gguf")
    counts = {weight: entry.count for weight, entry in here.entries.items()}
    assert {weight: entry.count for weight, entry in there.entries.items()} == counts
