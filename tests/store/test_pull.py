"""pull and lock against a local hub: pin once, download in parallel, verify, resume."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo import errors
from edgesppo.cli import main
from edgesppo.cli import pull as cli_pull
from edgesppo.hub.download import part_path
from edgesppo.lockfile import layers, toml
from edgesppo.lockfile.entries import Lock
from edgesppo.store import layout, locate, user_state
from edgesppo.store import pull as obtain
from tests.support.command_line import started
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub
from tests.support.faulty import Counting, Faulty
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from click.testing import Result

    from edgesppo.lockfile.entries import PinnedModel

NAME = "sppo-iter3"
TOKEN = "hf_aVerySecretToken"
OTHER = "0123456789abcdef0123456789abcdef01234567"
SECOND = "model-00002-of-00003.safetensors"
FOLDER = Path("models") / REPOSITORY.replace("/", "--") / REVISION
IN_SMALL_BLOCKS = (
    "from edgesppo import cli; from edgesppo.hub import client; client.BLOCK = 1000; cli.main()"
)


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, result.output
    assert TOKEN not in result.output
    return result


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def pull(*words: str, code: int = 0) -> Result:
    return run("pull", NAME, "--accept-license", *words, code=code)


def pinned() -> PinnedModel:
    return obtain.pin(obtain.parse_request(NAME))


def same(home: Path, hub: FakeHub) -> None:
    """Assert that exactly the repository's files are here, except those that can run code."""
    found = {path.name: path.read_bytes() for path in (home / FOLDER).iterdir()}
    expected = {path.name: path.read_bytes() for path in hub.folder.iterdir()}
    assert expected.pop("pytorch_model.bin")
    assert found == expected


def test_lock_asks_once_what_main_is_and_pins_every_file(hub: FakeHub, fresh_home: Path) -> None:
    result = run("lock", NAME)
    assert REVISION in result.output
    assert "the card's text says Apache-2.0" in in_one_line(result.output)
    entry = layers.read().models[NAME]
    assert (entry.revision, entry.iteration) == (REVISION, 3)
    files = {file.path: file for file in entry.files}
    shard = (hub.folder / SECOND).read_bytes()
    assert files[SECOND].sha256 == hashlib.sha256(shard).hexdigest()
    config = (hub.folder / "config.json").read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(config) + config).hexdigest()
    assert (files["config.json"].oid, files["config.json"].sha256) == (blob, None)
    assert "pytorch_model.bin" not in files
    assert str(fresh_home / "models.lock") in result.output
    asked = len(hub.requests)
    hub.branches["main"] = OTHER
    run("lock", NAME)
    assert len(hub.requests) == asked
    assert layers.read().models[NAME].revision == REVISION


def test_every_hash_is_kept_and_the_sha256_of_small_files_once_they_are_here(
    hub: FakeHub, fresh_home: Path, tmp_path: Path
) -> None:
    run("lock", NAME)
    shard = next(file for file in layers.read().models[NAME].files if file.path == SECOND)
    listed = next(item for item in hub.listing() if item["path"] == SECOND)
    assert (shard.sha256, shard.oid) == (listed["lfs"]["oid"], listed["oid"])
    pull()
    files = layers.read().models[NAME].files
    for file in files:
        data = (hub.folder / file.path).read_bytes()
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.oid == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    run("lock", NAME, "--update")
    assert layers.read().models[NAME].files == files
    (fresh_home / FOLDER / "config.json").write_bytes(b"{}")
    assert "config.json" in run("verify", NAME, code=1).output
    pull("--repair")
    same(fresh_home, hub)
    project = tmp_path / "project.lock"
    forgetful = replace(
        layers.read().models[NAME],
        files=tuple(
            replace(file, sha256=None if file.path != SECOND else file.sha256) for file in files
        ),
    )
    project.write_text(toml.render(Lock({NAME: forgetful})))
    run("rm", NAME, "--yes", "--lock", str(project))
    assert not (fresh_home / FOLDER).exists()


def test_update_pins_anew_and_shows_old_and_new(hub: FakeHub) -> None:
    run("lock", NAME)
    message = run("lock", f"{REPOSITORY}@{REVISION}", "--name", NAME.upper(), code=1).stderr
    assert f"{NAME} is taken by" in message
    assert "is the name of a device" in run("lock", "owner/nul", code=1).stderr
    hub.branches["main"] = OTHER
    result = run("lock", NAME, "--update")
    assert REVISION in result.output
    assert OTHER in result.output
    figures = json.loads(run("lock", NAME, "--json").stdout)
    assert (figures["revision"], figures["before"]) == (OTHER, OTHER)


def test_a_repository_of_anyones_gets_an_entry_of_its_own(hub: FakeHub, fresh_home: Path) -> None:
    lock = fresh_home / "project.lock"
    run("--lock", str(lock), "lock", f"{REPOSITORY}@{REVISION}", "--name", "mine")
    text = lock.read_text()
    assert f'revision = "{REVISION}"' in text
    assert "mine" not in layers.read().models
    assert not (fresh_home / "models.lock").exists()
    run("pull", "mine", "--lock", str(lock), "--accept-license")
    same(fresh_home, hub)
    assert "mine" in run("list", "--lock", str(lock)).output


def test_what_the_users_lock_has_is_written_to_a_projects_own(
    hub: FakeHub, fresh_home: Path, tmp_path: Path
) -> None:
    made = json.loads(pull("--convert", "--json").stdout)["path"]
    hub.branches["main"] = OTHER
    asked = len(hub.requests)
    project = tmp_path / "project.lock"
    result = run("lock", NAME, "--lock", str(project))
    assert f"Pinned in {project}" in result.output
    (fresh_home / "models.lock").rename(tmp_path / "away")
    assert REVISION in project.read_text()
    assert run("path", NAME, "--lock", str(project)).stdout.strip() == made
    before = project.read_bytes()
    run("lock", NAME, "--lock", str(project))
    assert project.read_bytes() == before
    assert len(hub.requests) == asked


def test_a_branch_is_never_written_and_a_moved_pin_is_refused(hub: FakeHub) -> None:
    hub.branches["dev"] = OTHER
    run("lock", f"{REPOSITORY}@dev")
    assert layers.read().models[NAME].revision == OTHER
    result = run("lock", f"{REPOSITORY}@main", code=1)
    assert f"is pinned to {OTHER}" in result.output
    result = run("lock", f"{REPOSITORY}@nowhere", "--update", code=1)
    assert "404" in result.output


def test_pull_says_size_licence_and_memory_before_the_first_byte(
    hub: FakeHub, fresh_home: Path
) -> None:
    result = run("pull", NAME, code=1)
    for word in ("size", "gemma", "Apache-2.0", "disk", "memory", "fits: yes", "--accept-license"):
        assert word in in_one_line(result.output)
    assert not (fresh_home / "models").exists()
    assert {name for kind, name, _ in hub.requests if kind == "data"} == {
        "config.json",
        "README.md",
    }


def test_where_there_is_nothing_to_convert_that_is_said(hub: FakeHub, tmp_path: Path) -> None:
    hub.folder = tmp_path / "files"
    hub.folder.mkdir()
    (hub.folder / "x.gguf").write_bytes(b"GGUF but no more than that")
    run("lock", f"{REPOSITORY}@{REVISION}", "--name", "x")
    for _ in range(2):  # fetched, and here already
        result = run("pull", "x", "--convert", "--accept-license")
        assert "x is already a GGUF file, so --convert has no effect" in in_one_line(result.stderr)
        assert "--convert has" not in run("pull", "x").output
    said = in_one_line(run("pull", "demo", "--convert").stderr)
    assert "demo is not a model of the hub, so --convert has no effect" in said


def test_what_a_gguf_file_takes_is_said_before_its_first_weight(
    hub: FakeHub, tmp_path: Path, demo_gguf: Path
) -> None:
    hub.folder = tmp_path / "files"
    hub.folder.mkdir()
    shutil.copy(demo_gguf, hub.folder / "x.gguf")
    (hub.folder / "odd.gguf").write_bytes(b"GGUF but no more than that")
    for name, words in (
        ("x.gguf", "with 512 tokens of context"),
        ("odd.gguf", "at least 0.0 kB, for the weights"),
    ):
        run("lock", f"{REPOSITORY}@{REVISION}", "--name", name[:-5], "--file", name)
        result = in_one_line(run("pull", name[:-5], code=1).output)
        assert words in result
        assert "fits: " in result
        assert all(int(h["Range"].rpartition("-")[2]) < 1 << 16 for h in hub.asked(name))
        assert "is not accepted, so nothing is fetched" in result


def test_what_is_pulled_is_what_the_hub_has_and_is_not_asked_for_again(
    hub: FakeHub, fresh_home: Path
) -> None:
    figures = json.loads(pull("--json").stdout)
    same(fresh_home, hub)
    assert figures["path"] == str(fresh_home / FOLDER)
    assert figures["fetched_bytes"] == figures["bytes"]
    asked = len(hub.requests)
    assert json.loads(run("pull", NAME, "--json").stdout)["fetched_bytes"] == 0
    assert len(hub.requests) == asked
    assert locate.find(NAME).path == fresh_home / FOLDER
    assert locate.find(REPOSITORY).path == fresh_home / FOLDER


def test_on_a_terminal_the_licence_is_asked_for_once(
    hub: FakeHub, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_pull, "has_terminal", lambda _: True)
    result = CliRunner().invoke(main, ["pull", NAME], input="n\n")
    assert result.exit_code == 1
    assert "is not accepted, so nothing is fetched" in result.output
    assert not (fresh_home / "models").exists()
    assert CliRunner().invoke(main, ["pull", NAME], input="y\n").exit_code == 0
    same(fresh_home, hub)
    run("rm", NAME, "--yes")
    assert CliRunner().invoke(main, ["pull", NAME]).exit_code == 0


def test_an_accepted_licence_is_not_asked_for_again(hub: FakeHub, fresh_home: Path) -> None:
    pull()
    run("rm", NAME)
    run("pull", NAME)
    same(fresh_home, hub)


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


def test_a_hub_that_changed_what_is_pinned_is_refused_with_both_values(
    hub: FakeHub, fresh_home: Path, tmp_path: Path
) -> None:
    run("lock", NAME)
    hub.folder = shutil.copytree(hub.folder, tmp_path / "changed")
    changed = bytearray((hub.folder / SECOND).read_bytes())
    changed[-1] ^= 1
    (hub.folder / SECOND).write_bytes(changed)
    now = hashlib.sha256(changed).hexdigest()
    before = next(file.digest for file in pinned().files if file.path == SECOND)
    for words in ([], ["--convert"]):
        last = pull(*words, code=1).stderr.splitlines()[-1]
        assert now in last
        assert before in last
    assert not (fresh_home / FOLDER / SECOND).exists()


def test_convert_keeps_the_gguf_alone_and_records_it(hub: FakeHub, fresh_home: Path) -> None:
    figures = json.loads(pull("--convert", "--json").stdout)
    made = Path(figures["path"])
    assert made == fresh_home / "models" / layout.build_path(pinned()).name
    assert {path.name for path in made.parent.iterdir()} == {made.name}
    build = layers.read().models[NAME].build("q4_k_m", layout.platform_name())
    assert build is not None
    assert build.sha256 == hashlib.sha256(made.read_bytes()).hexdigest()
    assert (build.converter[:9], build.library[:16]) == ("edgesppo ", "llama-cpp-python")
    asked = len(hub.requests)
    assert json.loads(run("pull", NAME, "--convert", "--json").stdout)["path"] == str(made)
    assert run("path", NAME).stdout.strip() == str(made)
    assert NAME in run("show", NAME).output or "gemma" in run("show", NAME).output
    assert len(hub.requests) == asked


def test_a_pulled_checkpoint_is_converted_without_the_hub(hub: FakeHub) -> None:
    pull()
    hub.requests.clear()
    figures = json.loads(pull("--convert", "--json").stdout)
    assert figures["path"].endswith(".gguf")
    assert not [kind for kind, name, _ in hub.requests if name.endswith(".safetensors")]


def test_a_pulled_checkpoint_and_the_hub_make_the_same_file(hub: FakeHub) -> None:
    pull()
    made = Path(json.loads(pull("--convert", "--json").stdout)["path"])
    from_folder = made.read_bytes()
    run("rm", NAME)
    pull("--convert")
    assert made.read_bytes() == from_folder
    card = json.loads(run("show", NAME, "--json").stdout)
    assert (card["name"], card["lineage"]["revision"]) == (REPOSITORY.split("/")[1], REVISION)
    assert hub.url


def test_a_build_that_differs_from_its_record_is_refused_with_both_values(
    hub: FakeHub, fresh_home: Path
) -> None:
    assert hub.url
    made = Path(json.loads(pull("--convert", "--json").stdout)["path"])
    lock = fresh_home / "models.lock"
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    lock.write_text(lock.read_text().replace(sha256, "0" * 64))
    made.unlink()
    last = pull("--convert", code=1).stderr.splitlines()[-1]
    assert sha256 in last
    assert "0" * 64 in last
    assert not made.exists()
    assert "differs" in run("gc").stderr


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


def test_a_disk_without_room_is_told_before_the_first_byte(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "free_bytes", lambda: 1000)
    assert "not enough disk space" in pull(code=1).stderr.splitlines()[-1]
    assert {name for kind, name, _ in hub.requests if kind == "data"} <= {
        "config.json",
        "README.md",
    }


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


def test_the_token_is_written_nowhere_and_goes_to_the_hub_only(
    hub: FakeHub, fresh_home: Path
) -> None:
    hub.faults[SECOND] = ["403"]
    pull(code=1)
    pull()
    pull("--convert")
    for path in fresh_home.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    headers = [headers.get("Authorization") for kind, _, headers in hub.requests]
    assert f"Bearer {TOKEN}" in headers
    assert all("Authorization" not in headers for headers in hub.asked(SECOND))


def test_many_that_write_the_lock_at_once_lose_no_entry(hub: FakeHub) -> None:
    entry = pinned()
    assert hub.url

    def add(number: int) -> None:
        layers.update_entry(f"n{number}", lambda _: replace(entry, name=f"n{number}"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"n{number}" for number in range(12)} < set(layers.read().models)


def test_a_projects_lock_that_is_not_there_is_not_passed_over(
    hub: FakeHub, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fresh_home / "none.lock"
    monkeypatch.setenv("EDGESPPO_LOCK", str(lock))
    assert f"{lock}: no such lock" in run("pull", NAME, code=1).stderr
    run("lock", NAME)
    pull()
    assert lock.exists()
    assert hub.url


def test_convert_takes_the_pinned_commit_of_a_name(hub: FakeHub, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    assert f"edgesppo lock {NAME}" in run("convert", NAME, "-o", str(out), code=1).stderr
    run("lock", NAME)
    hub.branches["main"] = OTHER
    run("convert", NAME, "-o", str(out))
    assert f"tree/{REVISION}" in out.read_bytes()[: 1 << 20].decode("latin-1")


def test_a_damaged_lock_of_the_users_own_is_named(fresh_home: Path) -> None:
    lock = fresh_home / "models.lock"
    for text in ("version = 1\n[[mod", "version = 7\n", "\xff"):
        lock.write_text(text, encoding="latin-1")
        assert str(lock) in run("list", code=1).stderr


def test_many_that_remember_at_once_forget_nothing(fresh_home: Path) -> None:
    names = [f"owner/n{number}" for number in range(12)]
    threads = [threading.Thread(target=user_state.accept, args=(name, "0")) for name in names]
    threads += [threading.Thread(target=user_state.set_last, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(user_state.accepted(name, "0") for name in names)
    assert user_state.last() in names
    assert {path.name for path in fresh_home.iterdir()} == {"remembered.json"}
