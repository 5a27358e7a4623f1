"""`lock` asks the hub once, pins every file, and never loses an entry."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgesppo.lockfile import layers, toml
from edgesppo.lockfile.entries import Lock
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub
from tests.support.pulls import FOLDER, NAME, OTHER, SECOND, in_one_line, pinned, pull, run, same

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.skipif(os.name == "nt", reason="modes of files")
def test_a_lock_keeps_its_mode_and_the_comment_at_its_head(
    fresh_home: Path, demo_gguf: Path
) -> None:
    run("import", str(demo_gguf), "--name", "one")
    lock = fresh_home / "models.lock"
    _, *rest = lock.read_text().splitlines(keepends=True)
    lock.write_text("".join(["# Ours.\n", "# Ask Kim.\n", *rest]))
    for mode in (0o600, 0o664):
        lock.chmod(mode)
        run("import", str(demo_gguf), "--name", f"mine-{mode}")
        assert lock.stat().st_mode & 0o777 == mode
    assert lock.read_text().startswith("# Ours.\n# Ask Kim.\n\nversion = 1\n")
