"""`gc` removes partial downloads and orphans, and nothing that another process is at."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from edgesppo import errors
from edgesppo.cli import removal as cli_removal
from edgesppo.hub.download import part_path
from edgesppo.lockfile import layers
from edgesppo.store import commit_lock, gc, layout, locate
from edgesppo.store import pull as obtain
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem
from edgesppo.system.in_use import InUse
from tests.conftest import DEMO
from tests.support.fake_hub import REVISION, FakeHub
from tests.support.pulls import NAME, SECOND, pulled, run, states

if TYPE_CHECKING:
    from pathlib import Path


def test_gc_removes_partial_downloads_and_orphans_and_nothing_else(
    hub: FakeHub, fresh_home: Path, tmp_path: Path
) -> None:
    from edgesppo.store.converted import ensure_converted

    folder = pulled()
    part = part_path(folder / SECOND)
    part.write_bytes(b"1" * 1000)
    mine = shutil.copytree(folder, tmp_path / "mine")
    orphan, kept = ensure_converted(locate.find(mine)), ensure_converted(locate.find(NAME))
    shutil.rmtree(mine)
    held = InUse(orphan)  # as while another process measures on it
    kept_one = run("gc", "--yes", "--json")
    assert orphan.exists()
    assert f"{orphan} is kept: it is in use now" in kept_one.stderr
    assert json.loads(kept_one.stdout)["removed"] == [str(part)]
    held.release()
    orphan.chmod(0o444)
    part.write_bytes(b"1" * 1000)
    expected = 1000 + orphan.stat().st_size
    dry = json.loads(run("gc", "--dry-run", "--json").stdout)
    assert (dry["freed_bytes"], part.exists()) == (expected, True)
    assert json.loads(run("gc", "--yes", "--json").stdout)["removed"] == [str(part), str(orphan)]
    assert not part.exists()
    assert not orphan.exists()
    assert kept.exists()
    assert layout.is_present(layers.read().models[NAME])
    assert "Nothing to remove" in run("gc", "--yes").stderr
    assert states()[NAME] == "here"
    (fresh_home / "models.lock").unlink()
    assert str(folder) in run("gc", "--yes", "--unpinned").stderr
    assert not folder.exists()
    assert hub.url


def test_gc_leaves_what_another_process_is_fetching(hub: FakeHub) -> None:
    entry = obtain.pin(obtain.parse_request(NAME))
    part = part_path(layout.model_dir(entry) / SECOND)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"1")
    with commit_lock.hold(REVISION, None, FileSystem()):
        assert not gc.find_garbage()
    assert [rest.path for rest in gc.find_garbage()] == [part]
    assert hub.url


def test_what_a_pull_begins_between_question_and_answer_stays(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pulled()
    part = part_path(folder / SECOND)
    monkeypatch.setattr(cli_removal, "has_terminal", lambda _: True)
    for command, code in ((["rm", NAME], 1), (["gc"], 0)):
        part.write_bytes(b"1")
        with ExitStack() as meanwhile:

            def answer(*_: object, **__: object) -> bool:
                meanwhile.enter_context(commit_lock.hold(REVISION, None, FileSystem()))
                return True

            monkeypatch.setattr("click.confirm", answer)
            result = run(*command, code=code)
        assert part.exists()
        assert (folder / SECOND).exists()
        assert "is downloading or converting" in result.stderr or "in use now" in result.stderr
    assert hub.url


def test_gc_says_for_whom_something_is_left_alone(hub: FakeHub) -> None:
    part = part_path(pulled() / "sub" / "deep.json")  # a lock may pin files in folders
    part.parent.mkdir()
    part.write_bytes(b"1" * 1000)
    with commit_lock.hold(REVISION, None, FileSystem()):
        result = run("gc", "--yes")
    assert f"Files that process {os.getpid()} on" in result.stderr
    assert part.exists()
    assert str(part) in run("gc", "--yes").stderr
    assert not part.exists()
    assert hub.url


def test_gc_takes_what_a_killed_conversion_left_but_not_while_one_goes_on(
    fresh_home: Path, tmp_path: Path
) -> None:
    from edgesppo.store import converted

    mine = shutil.copytree(DEMO, tmp_path / "mine")
    copy = converted.copy_of(locate.find(mine), "q4_k_m")
    converted.make_folder(copy.parent)
    converted.remember_origin(copy, mine)
    left = [copy.with_suffix(".from")]
    left += [copy.with_name(f".{copy.name}.edgesppo-{kind}") for kind in ("journal", "part")]
    for path in left[1:]:
        path.write_bytes(b"1" * 1000)
    foreign = copy.with_name(".mine.gguf.edgesppo-part")
    foreign.touch()
    with filelock.hold(copy, FileSystem()):
        assert "are kept" in run("gc", "--yes").stderr
        assert "nothing is removed" in run("rm", str(mine), "--yes", code=1).stderr
    (copy.with_name(f".{copy.name}.busy")).touch()  # its process was killed
    removed = json.loads(run("gc", "--yes", "--json").stdout)["removed"]
    assert sorted(removed) == sorted(map(str, left))
    assert list((fresh_home / "converted").iterdir()) == [foreign]


def test_gc_leaves_a_converted_copy_that_was_given_a_name(fresh_home: Path, tmp_path: Path) -> None:
    from edgesppo.store.converted import ensure_converted

    assert fresh_home.is_dir()
    mine = shutil.copytree(DEMO, tmp_path / "mine")
    copy = ensure_converted(locate.find(mine))
    run("import", str(copy), "--name", "kept")
    shutil.rmtree(mine)
    assert "Nothing to remove" in run("gc", "--yes").stderr
    assert locate.find("kept").path == copy
    run("rm", "kept")
    assert str(copy) in run("gc", "--dry-run").stderr


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize(
    ("make", "said"),
    [("link", "a symbolic link"), ("fifo", "not a regular file"), ("folder", "not a regular file")],
)
def test_a_mark_of_who_is_at_work_that_is_none_of_ours_is_told(
    fresh_home: Path, tmp_path: Path, make: str, said: str
) -> None:
    mark, target = layout.commit_lock_path(REVISION), tmp_path / "target"
    mark.parent.mkdir(parents=True)
    {"link": lambda: mark.symlink_to(target), "fifo": lambda: os.mkfifo(mark)}.get(
        make, mark.mkdir
    )()
    with (
        pytest.raises(errors.OutputError, match=f"{said}.*; remove it"),
        commit_lock.hold(REVISION, pytest.fail, FileSystem()),
    ):
        pass
    assert not target.exists()
    assert fresh_home in mark.parents
