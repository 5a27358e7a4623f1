"""`rm` frees what a name alone uses, keeps the pin, and touches nothing outside of our folder."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo import errors
from edgesppo.cli import main
from edgesppo.cli import removal as cli_removal
from edgesppo.hub.download import part_path
from edgesppo.lockfile import layers
from edgesppo.store import commit_lock, gc, layout, locate
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem
from tests.conftest import DEMO
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub
from tests.support.pulls import NAME, SECOND, pulled, run, states

if TYPE_CHECKING:
    from pathlib import Path


def test_rm_asks_on_a_terminal(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pulled()
    monkeypatch.setattr(cli_removal, "has_terminal", lambda _: True)
    result = CliRunner().invoke(main, ["rm", NAME], input="n\n")
    assert (result.exit_code, folder.is_dir()) == (1, True)
    assert CliRunner().invoke(main, ["rm", NAME], input="y\n").exit_code == 0
    assert not folder.exists()
    assert hub.url


def test_without_a_terminal_nothing_is_removed_unasked(hub: FakeHub) -> None:
    folder = pulled()
    part_path(folder / SECOND).write_bytes(b"1")
    for command in (["rm", NAME], ["gc"]):
        result = run(*command, code=1)
        assert "add --yes" in result.stderr
        assert str(folder) in result.stderr
    assert part_path(folder / SECOND).exists()
    assert layout.is_present(layers.read().models[NAME])
    assert hub.url


def test_rm_says_what_it_frees_and_keeps_the_pin(hub: FakeHub, fresh_home: Path) -> None:
    made = pulled("--convert")
    size = made.stat().st_size
    figures = json.loads(run("rm", NAME, "--yes", "--json").stdout)
    assert figures["freed_bytes"] == size
    assert not made.exists()
    assert layers.read().models[NAME].revision == REVISION
    assert "there is nothing to remove" in run("rm", NAME, "--yes", code=1).stderr
    folder = pulled()
    locate.find(NAME)
    run("rm", NAME, "--yes")
    assert not folder.exists()
    assert not folder.parent.exists()
    assert fresh_home.is_dir()
    assert hub.url


def test_rm_leaves_what_another_name_uses(hub: FakeHub) -> None:
    folder = pulled()
    run("lock", f"{REPOSITORY}@{REVISION}", "--name", "mine")
    assert "used by mine are kept" in run("rm", NAME, "--yes").stderr
    assert layout.is_present(layers.read().models["mine"])
    run("pull", "mine")
    assert folder.is_dir()
    assert hub.url


def test_two_gguf_files_of_one_commit_are_removed_singly(hub: FakeHub, tmp_path: Path) -> None:
    hub.folder = tmp_path / "files"
    hub.folder.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (hub.folder / name).write_bytes(name.encode() * 1000)
        run("lock", f"{REPOSITORY}@{REVISION}", "--name", name[0], "--file", name)
        pulled(name=name[0])
    a, b = (locate.find(name).path for name in "ab")
    result = run("rm", "a", "--yes")
    assert "6.0 kB were freed" in result.stderr
    assert "also used by" not in result.stderr
    assert (a.exists(), b.exists()) == (False, True)
    run("rm", "b", "--yes")
    assert not b.parent.exists()


def test_rm_of_an_import_is_from_the_lock_that_it_stands_in(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path
) -> None:
    lock = tmp_path / "project.lock"
    run("import", str(demo_gguf), "--name", "mine")
    lock.write_text(
        'version = 1\n\n[[model]]\nname = "x"\nkind = "checkpoint"\nlicense = "L"\n'
        'description = "d"\nrepository = "o/n"\nrevision = "unresolved"\n'
    )
    before = lock.read_bytes()
    own = fresh_home / "models.lock"
    assert f"mine was removed from {own}" in run("rm", "mine", "--lock", str(lock)).stderr
    assert lock.read_bytes() == before
    assert "mine" not in states()
    run("import", str(demo_gguf), "--name", "mine")
    run("import", str(demo_gguf), "--name", "mine", "--lock", str(lock))
    result = run("rm", "mine", "--lock", str(lock))
    assert f"mine was removed from {lock}" in result.stderr
    assert f"{own} has an entry mine, too" in result.stderr
    assert states()["mine"] == "here"


def test_rm_takes_the_converted_copy_of_a_pulled_checkpoint(hub: FakeHub) -> None:
    from edgesppo.store.converted import ensure_converted

    pulled()
    copy = ensure_converted(locate.find(NAME))
    with filelock.hold(copy, FileSystem()):  # as while another process makes it
        assert "so nothing is removed" in run("rm", NAME, "--yes", code=1).stderr
    assert copy.exists()
    assert "a converted copy" in run("rm", NAME, "--yes").stderr
    assert not copy.exists()
    assert not copy.with_suffix(".from").exists()
    assert hub.url


def test_rm_takes_the_copies_of_a_folder_and_of_an_imported_checkpoint(
    fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgesppo.store.converted import ensure_converted

    assert fresh_home.is_dir()
    mine = shutil.copytree(DEMO, tmp_path / "mine")
    run("import", str(mine))
    run("import", str(mine), "--name", "twin")
    for words in (["mine"], [str(mine)], ["twin"]):
        copy = ensure_converted(locate.find(mine))
        figures = json.loads(run("rm", *words, "--yes", "--json").stdout)
        kept = words == ["mine"]  # the twin uses it
        assert (copy.exists(), figures["removed"]) == (kept, [] if kept else [str(copy)])
    assert "nothing to remove" in run("rm", str(mine), code=1).stderr
    copy = ensure_converted(locate.find(mine))
    monkeypatch.chdir(mine)
    assert "'' is not in models.lock" in run("rm", "", "--yes", code=1).stderr
    assert copy.exists()
    assert mine.is_dir()
    assert not {"mine", "twin"} & states().keys()


def test_rm_takes_what_an_unfinished_conversion_left(hub: FakeHub) -> None:
    made = pulled("--convert")
    part = made.rename(made.with_name(f".{made.name}.edgesppo-part"))
    other = part.with_name(part.name.replace(NAME, f"{NAME}-x"))
    other.touch()
    run("rm", NAME, "--yes")
    assert (part.exists(), other.exists()) == (False, True)
    assert hub.url


def test_rm_under_a_running_pull_says_who_is_at_work_and_removes_nothing(hub: FakeHub) -> None:
    folder = pulled()
    with commit_lock.hold(REVISION, None, FileSystem()):
        message = run("rm", NAME, "--yes", code=1).stderr.splitlines()[-1]
    assert f"process {os.getpid()} on" in message
    assert "nothing is removed" in message
    assert layout.is_present(layers.read().models[NAME])
    run("rm", NAME, "--yes")
    assert not folder.exists()
    assert hub.url


def test_nothing_outside_of_our_folders_is_removed(fresh_home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    mine = outside / REVISION / "mine.gguf"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"1")
    (fresh_home / "models").mkdir()
    (fresh_home / "models" / "o--n").symlink_to(outside)
    (rest,) = gc.find_garbage(unpinned=True)
    with pytest.raises(errors.OutputError, match="outside of"):
        gc.collect([rest], unpinned=True)
    assert mine.exists()


def test_the_folder_of_copies_may_lie_on_another_disk(fresh_home: Path, tmp_path: Path) -> None:
    from edgesppo.store.converted import ensure_converted

    (tmp_path / "disk").mkdir()
    mine = tmp_path / "disk" / "mine.gguf"
    mine.touch()
    (fresh_home / "converted").symlink_to(tmp_path / "disk")
    folder = shutil.copytree(DEMO, tmp_path / "folder")
    copy = ensure_converted(locate.find(folder))
    copy.rename(tmp_path / "third disk.gguf")
    copy.symlink_to(tmp_path / "third disk.gguf")
    shutil.rmtree(folder)
    assert "is a link" not in run("doctor").output
    run("gc", "--yes")
    assert not copy.is_symlink()
    assert list(mine.parent.iterdir()) == [mine]
