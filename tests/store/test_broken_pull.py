"""Whatever breaks a pull, the network, the disk or a kill: the next one goes on and ends well."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgesppo import errors
from edgesppo.hub.download import part_path
from edgesppo.store import layout
from edgesppo.store import pull as obtain
from tests.support.command_line import started
from tests.support.fake_hub import REPOSITORY, FakeHub
from tests.support.faulty import Counting, Faulty
from tests.support.paths import ROOT
from tests.support.pulls import FOLDER, NAME, SECOND, pinned, pull, run, same

if TYPE_CHECKING:
    from pathlib import Path


IN_SMALL_BLOCKS = (
    "from edgesppo import cli; from edgesppo.hub import client; client.BLOCK = 1000; cli.main()"
)


@pytest.mark.parametrize(
    "faults", [["cut", "cut"], ["ignored"], ["cut", "ignored"], ["503", "429"]]
)
def test_a_broken_connection_is_gone_on_from(
    hub: FakeHub, fresh_home: Path, faults: list[str]
) -> None:
    hub.faults[SECOND] = list(faults)
    pull()
    same(fresh_home, hub)


@pytest.mark.parametrize(
    ("place_", "faults", "words"),
    [
        (SECOND, ["short"], ["bytes on the hub, but", "are pinned"]),
        (SECOND, ["long"], ["bytes on the hub, but", "are pinned"]),
        (SECOND, ["cut", "stub"], ["bytes on the hub, but", "are pinned"]),
        (SECOND, ["wrong"] * 2, ["arrived with the hash", "is pinned"]),
        (SECOND, ["html"], ["received a web page"]),
        (SECOND, ["403"], ["accept the licence at"]),
        ("tokenizer.model", ["401"], ["log in", "hf auth login"]),
        (SECOND, ["404"], ["404"]),
        (SECOND, ["500"] * 6, ["status 500, 6 times"]),
        (SECOND, ["429:9999"], ["asks to wait 9,999 s"]),
        ("config.json", ["wrong"], ["arrived with the hash", "is pinned"]),
        ("revision", ["401"], ["hf auth login"]),
        ("revision", ["html"], ["received a web page"]),
        ("revision", ["wrong"], ["did not say which commit"]),
        ("tree", ["wrong"], ["did not return a list"]),
    ],
)
def test_what_the_hub_refuses_is_one_line_and_the_next_pull_ends_well(
    hub: FakeHub, fresh_home: Path, place_: str, faults: list[str], words: list[str]
) -> None:
    hub.faults[place_] = list(faults)
    result = pull(code=1)
    last = result.stderr.splitlines()[-1]
    for word in words:
        assert word in last
    assert not (fresh_home / FOLDER / place_).exists()
    hub.faults.clear()
    pull()
    same(fresh_home, hub)


def test_a_file_that_is_wrong_once_is_asked_for_again(hub: FakeHub, fresh_home: Path) -> None:
    hub.faults[SECOND] = ["wrong"]
    pull()
    same(fresh_home, hub)


def test_two_pulls_at_once_fetch_every_file_once(hub: FakeHub, fresh_home: Path) -> None:
    entry, waited = pinned(), list[str]()
    hub.requests.clear()
    hub.faults[SECOND] = ["stall"]
    first = threading.Thread(target=obtain.pull, args=(entry,))
    first.start()
    until = time.monotonic() + 60
    while not hub.asked(SECOND) and time.monotonic() < until:
        time.sleep(0.01)

    def told(owner: str) -> None:
        waited.append(owner)
        hub.go_on.set()

    assert not obtain.pull(entry, on_wait=told)
    first.join()
    assert f"process {os.getpid()} on" in waited[0]
    assert all(len(hub.asked(file.path)) == 1 for file in entry.files)
    same(fresh_home, hub)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is not known there")
def test_killed_in_the_middle_the_next_pull_goes_on_inside_the_file(
    hub: FakeHub, fresh_home: Path
) -> None:
    entry = pinned()
    hub.faults[SECOND] = ["stall"]
    words = [sys.executable, "-c", IN_SMALL_BLOCKS, "pull", NAME, "--accept-license"]
    part, until = part_path(fresh_home / FOLDER / SECOND), time.monotonic() + 60
    with started(words, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while not (layout.size_of(part) or 0) and time.monotonic() < until:
            time.sleep(0.02)
        process.kill()
    hub.go_on.set()
    there = part.stat().st_size
    assert there > 0
    assert obtain.bytes_to_fetch(entry) <= entry.size - there
    obtain.pull(entry)
    assert hub.asked(SECOND)[-1]["Range"].startswith(f"bytes={there}-")
    same(fresh_home, hub)


def test_bytes_that_were_spoiled_on_the_disk_are_fetched_anew(
    hub: FakeHub, fresh_home: Path
) -> None:
    part = part_path(fresh_home / FOLDER / SECOND)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * 1000)
    obtain.pull(pinned())
    same(fresh_home, hub)


def test_every_retry_is_told_whichever_thread_it_is_in(hub: FakeHub) -> None:
    pinned()
    hub.faults[SECOND] = ["503", "cut"]
    told = [line for line in pull().stderr.splitlines() if line.startswith("Trying again")]
    assert [line.split("): ")[1] for line in told] == [
        f"status 503: {SECOND} of {REPOSITORY}",
        f"the connection ended early: {SECOND} of {REPOSITORY}",
    ]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
def test_after_a_fault_of_the_disk_at_any_operation_the_next_pull_ends_well(
    hub: FakeHub, fresh_home: Path, error: int
) -> None:
    entry, counting = pinned(), Counting()
    obtain.pull(entry, files=counting)
    last = len(counting.done)
    for number in range(1, last + 1, 3):
        shutil.rmtree(fresh_home / "models")
        try:
            obtain.pull(entry, files=Faulty(number, error))
        except errors.OutputError as problem:
            assert "\n" not in str(problem)  # noqa: PT017 - what locks may fail and be done without
        obtain.pull(entry)
        same(fresh_home, hub)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_that_leads_out_of_our_folder_is_not_followed(
    hub: FakeHub, fresh_home: Path, tmp_path: Path
) -> None:
    assert hub.url
    outside = tmp_path / "outside"
    outside.mkdir()
    (fresh_home / FOLDER).parent.mkdir(parents=True)
    (fresh_home / FOLDER).symlink_to(outside)
    assert "outside of" in pull(code=1).stderr.splitlines()[-1]
    assert not list(outside.iterdir())
    (fresh_home / FOLDER).unlink()
    (fresh_home / FOLDER).mkdir()
    mine = outside / "mine"
    mine.write_text("mine")
    part_path(fresh_home / FOLDER / SECOND).symlink_to(mine)
    assert "is a symbolic link" in pull(code=1).stderr.splitlines()[-1]
    assert mine.read_text() == "mine"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(hub: FakeHub, fresh_home: Path) -> None:
    fresh_home.chmod(0o500)
    try:
        message = run("pull", NAME, "--accept-license", code=1).stderr
        assert "cannot write" in message.splitlines()[-1]
    finally:
        fresh_home.chmod(0o700)
    assert hub.url
