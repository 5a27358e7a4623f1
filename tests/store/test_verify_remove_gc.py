"""Models on this machine are listed, verified, removed and collected, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo import errors
from edgesppo.cli import main
from edgesppo.cli import removal as cli_removal
from edgesppo.cli import verify as cli_verify
from edgesppo.hub.download import part_path
from edgesppo.lockfile import layers
from edgesppo.store import commit_lock, gc, layout, locate, user_state
from edgesppo.store import pull as obtain
from edgesppo.system.fs import FileSystem
from tests.conftest import DEMO
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub

if TYPE_CHECKING:
    from click.testing import Result

NAME = "sppo-iter3"
SECOND = "model-00002-of-00003.safetensors"
FOLDER = Path("models") / REPOSITORY.replace("/", "--") / REVISION


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, result.output
    return result


def pull(*words: str, name: str = NAME) -> Path:
    result = run("pull", name, "--accept-license", "--json", *words)
    return Path(json.loads(result.stdout)["path"])


def states() -> dict[str, str]:
    rows = json.loads(run("list", "--json").stdout)["models"]
    return {row["name"]: row["state"] for row in rows}


@pytest.mark.parametrize("columns", [60, 100])
def test_list_fits_a_terminal_and_cuts_nothing_elsewhere(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    assert fresh_home.is_dir()
    elsewhere = run("list").output.splitlines()
    for line, model in zip(
        elsewhere, json.loads(run("list", "--json").output)["models"], strict=True
    ):
        assert line.endswith(model["description"])
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("edgesppo.cli.list.has_terminal", lambda _: True)
    shown = run("list").output.splitlines()
    assert max(map(len, shown)) < columns
    for line, whole in zip(shown, elsewhere, strict=True):
        assert line == whole or whole.startswith(line.removesuffix("..."))


def test_list_tells_what_is_here(hub: FakeHub) -> None:
    assert states() == {
        "demo": "here",
        "sppo-iter1": "absent",
        "sppo-iter2": "absent",
        NAME: "absent",
        "gemma-2-9b-it": "absent",
        "gemma-2-2b-it": "absent",
    }
    folder = pull()
    assert states()[NAME] == "here"
    (folder / SECOND).unlink()
    assert states()[NAME] == "in part"
    pull("--convert")
    assert states()[NAME] == "converted"
    assert hub.url


def test_an_absent_model_says_how_to_get_it(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    message = run("chat", NAME, code=1).stderr
    assert f"to get it: edgesppo pull {NAME} --convert" in message
    message = run("chat", "owner/unknown", code=1).stderr
    assert "edgesppo pull owner/unknown --convert" in message


def test_verify_names_the_damaged_file_and_repair_fetches_only_that(hub: FakeHub) -> None:
    folder = pull()
    assert run("verify", NAME).output.count("ok  ") == len(list(folder.iterdir()))
    data = bytearray((folder / SECOND).read_bytes())
    whole = bytes(data)
    data[-1] ^= 1
    (folder / SECOND).write_bytes(data)
    result = run("verify", "--all", code=1)
    assert f"DAMAGED  {folder / SECOND}" in result.output
    assert f"edgesppo pull {NAME} --repair" in result.output
    figures = json.loads(run("verify", "--json", code=1).stdout)
    assert [c["path"] for c in figures["models"][NAME] if not c["sound"]] == [str(folder / SECOND)]
    hub.requests.clear()
    pull("--repair")
    assert (folder / SECOND).read_bytes() == whole
    assert {name for kind, name, _ in hub.requests if kind == "data"} == {SECOND}
    run("verify", NAME)


def test_on_a_terminal_verify_offers_to_fetch_what_is_damaged(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull()
    whole = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(whole[:-1])
    monkeypatch.setattr(cli_verify, "has_terminal", lambda _: True)
    result = CliRunner().invoke(main, ["verify", NAME], input="n\n")
    assert "Do that now?" in result.output
    assert (folder / SECOND).read_bytes() != whole
    result = CliRunner().invoke(main, ["verify", NAME], input="y\n")
    assert (folder / SECOND).read_bytes() == whole
    run("verify", NAME)
    assert hub.url


def test_rm_asks_on_a_terminal(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pull()
    monkeypatch.setattr(cli_removal, "has_terminal", lambda _: True)
    result = CliRunner().invoke(main, ["rm", NAME], input="n\n")
    assert (result.exit_code, folder.is_dir()) == (1, True)
    assert CliRunner().invoke(main, ["rm", NAME], input="y\n").exit_code == 0
    assert not folder.exists()
    assert hub.url


def test_a_damaged_build_is_made_again(hub: FakeHub) -> None:
    made = pull("--convert")
    whole = made.read_bytes()
    made.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "--convert --repair" in run("verify", NAME, code=1).output
    pull("--convert", "--repair")
    assert made.read_bytes() == whole
    assert hub.url


def test_a_damaged_build_alone_is_made_again_and_no_checkpoint_is_kept(hub: FakeHub) -> None:
    made = pull("--convert")
    whole = made.read_bytes()
    made.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    result = run("pull", NAME, "--repair", "--offline", code=1)
    assert "nothing is fetched" in result.stderr
    assert made.exists()  # as it cannot be had again now
    result = run("pull", NAME, "--repair")
    assert f"{made} is damaged: it will be removed and converted again" in result.stderr
    assert made.read_bytes() == whole
    assert {path.name for path in made.parent.iterdir()} == {made.name}
    assert (
        "No file of sppo-iter3 on this machine is damaged" in run("pull", NAME, "--repair").stderr
    )
    assert hub.url


def test_repair_mends_the_checkpoint_beside_a_sound_build_too(hub: FakeHub) -> None:
    folder, made = pull(), pull("--convert")
    whole = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(whole[:-1])
    pull("--repair")
    assert (folder / SECOND).read_bytes() == whole
    hub.requests.clear()
    made.write_bytes(made.read_bytes()[:-1] + b"?")
    run("pull", NAME, "--repair", "--offline")
    run("verify", NAME)
    assert not hub.requests


def test_verify_of_what_is_not_here_is_told(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    assert "not on this machine" in run("verify", NAME, code=1).stderr
    assert "is not in models.lock" in run("verify", "nobody", code=1).stderr


def test_rm_says_what_it_frees_and_keeps_the_pin(hub: FakeHub, fresh_home: Path) -> None:
    made = pull("--convert")
    size = made.stat().st_size
    figures = json.loads(run("rm", NAME, "--json").stdout)
    assert figures["freed_bytes"] == size
    assert not made.exists()
    assert layers.read().models[NAME].revision == REVISION
    assert "there is nothing to remove" in run("rm", NAME, code=1).stderr
    folder = pull()
    locate.find(NAME)
    run("rm", NAME)
    assert not folder.exists()
    assert not folder.parent.exists()
    assert fresh_home.is_dir()
    assert hub.url


def test_rm_leaves_what_another_name_uses(hub: FakeHub) -> None:
    folder = pull()
    run("lock", f"{REPOSITORY}@{REVISION}", "--name", "mine")
    assert "used by mine are kept" in run("rm", NAME).stderr
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
        pull(name=name[0])
    a, b = (locate.find(name).path for name in "ab")
    result = run("rm", "a")
    assert "6.0 kB were freed" in result.stderr
    assert "also used by" not in result.stderr
    assert (a.exists(), b.exists()) == (False, True)
    run("rm", "b")
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

    pull()
    copy = ensure_converted(locate.find(NAME))
    assert "a converted copy" in run("rm", NAME).stderr
    assert not copy.exists()
    assert not copy.with_suffix(".from").exists()
    assert hub.url


def test_gc_removes_partial_downloads_and_orphans_and_nothing_else(
    hub: FakeHub, fresh_home: Path, tmp_path: Path
) -> None:
    from edgesppo.store.converted import ensure_converted

    folder = pull()
    part = part_path(folder / SECOND)
    part.write_bytes(b"1" * 1000)
    mine = shutil.copytree(folder, tmp_path / "mine")
    orphan, kept = ensure_converted(locate.find(mine)), ensure_converted(locate.find(NAME))
    shutil.rmtree(mine)
    expected = 1000 + orphan.stat().st_size
    dry = json.loads(run("gc", "--dry-run", "--json").stdout)
    assert (dry["freed_bytes"], part.exists()) == (expected, True)
    assert json.loads(run("gc", "--json").stdout)["removed"] == [str(part), str(orphan)]
    assert not part.exists()
    assert not orphan.exists()
    assert kept.exists()
    assert layout.is_present(layers.read().models[NAME])
    assert "Nothing to remove" in run("gc").stderr
    assert states()[NAME] == "here"
    (fresh_home / "models.lock").unlink()
    assert str(folder) in run("gc", "--unpinned").stderr
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


def test_rm_under_a_running_pull_says_who_is_at_work_and_removes_nothing(hub: FakeHub) -> None:
    folder = pull()
    with commit_lock.hold(REVISION, None, FileSystem()):
        message = run("rm", NAME, code=1).stderr.splitlines()[-1]
    assert f"process {os.getpid()} on" in message
    assert "nothing is removed" in message
    assert layout.is_present(layers.read().models[NAME])
    run("rm", NAME)
    assert not folder.exists()
    assert hub.url


def test_what_a_pull_begins_between_question_and_answer_stays(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull()
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
    part = part_path(pull() / "sub" / "deep.json")  # a lock may pin files in folders
    part.parent.mkdir()
    part.write_bytes(b"1" * 1000)
    with commit_lock.hold(REVISION, None, FileSystem()):
        result = run("gc")
    assert f"Files that process {os.getpid()} on" in result.stderr
    assert part.exists()
    assert str(part) in run("gc").stderr
    assert not part.exists()
    assert hub.url


def test_the_builds_of_two_platforms_lie_side_by_side(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = pull("--convert")
    monkeypatch.setattr(layout, "platform_name", lambda: "linux-riscv64")
    there = pull("--convert")
    assert here != there
    assert here.read_bytes() == there.read_bytes()
    assert not gc.find_garbage(unpinned=True)
    run("rm", NAME)
    assert not here.exists()
    assert not there.exists()
    assert hub.url


def test_an_import_is_by_reference_and_rm_leaves_the_file(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path
) -> None:
    mine = tmp_path / "My Model.gguf"
    shutil.copy(demo_gguf, mine)
    run("import", str(mine))
    assert locate.find("my-model").path == mine
    assert states()["my-model"] == "here"
    assert {path.name for path in fresh_home.iterdir()} == {"models.lock"}
    assert (
        "Licence" in run("show", "my-model").output or "licence" in run("show", "my-model").output
    )
    run("verify", "my-model")
    data = bytearray(mine.read_bytes())
    data[-1] ^= 1
    mine.write_bytes(data)
    assert "your own" in run("verify", "my-model", code=1).stderr
    assert "restore it" in run("pull", "my-model", "--repair", code=1).stderr
    mine.rename(tmp_path / "gone.gguf")
    assert "my-model is your own file" in run("verify", code=1).stderr
    message = run("run", "my-model", "Hi", code=1).stderr
    assert "my-model, no longer exists; import it again" in message
    mine.write_bytes(data[:-1])
    sizes = f"has {len(data) - 1:,} bytes, but {len(data):,} are pinned"
    assert sizes in run("run", "my-model", "Hi", code=1).stderr
    assert sizes in run("verify", "my-model", code=1).output
    mine.unlink()
    assert "edgesppo rm my-model" in message
    run("rm", "my-model")
    assert (tmp_path / "gone.gguf").exists()
    assert not (fresh_home / "models.lock").exists()


@pytest.mark.parametrize("words", ["../mine.gguf", "../down/../mine.gguf"])
def test_an_import_by_a_relative_path_is_recorded_by_its_whole_one(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    assert fresh_home.is_dir()
    (tmp_path / "down").mkdir()
    shutil.copy(demo_gguf, tmp_path / "mine.gguf")
    monkeypatch.chdir(tmp_path / "down")
    run("import", words)
    assert locate.find("mine").path == tmp_path / "mine.gguf"


def test_gc_leaves_a_converted_copy_that_was_given_a_name(fresh_home: Path, tmp_path: Path) -> None:
    from edgesppo.store.converted import ensure_converted

    assert fresh_home.is_dir()
    mine = shutil.copytree(DEMO, tmp_path / "mine")
    copy = ensure_converted(locate.find(mine))
    run("import", str(copy), "--name", "kept")
    shutil.rmtree(mine)
    assert "Nothing to remove" in run("gc").stderr
    assert locate.find("kept").path == copy
    run("rm", "kept")
    assert str(copy) in run("gc", "--dry-run").stderr


def test_a_checkpoint_folder_can_be_imported_and_used(fresh_home: Path) -> None:
    run("import", str(DEMO), "--name", "toy")
    result = run("run", "toy", "What is the capital of France?", "--temperature", "0")
    assert "Paris" in result.stdout
    assert fresh_home.is_dir()


PATHS = ("a folder", "no gguf", "nothing")


@pytest.mark.parametrize(
    "bad",
    ["a folder", "no gguf", "nothing", "taken", "taken but for case", "a bad name", "a device"],
)
def test_what_cannot_be_imported_is_told_and_not_recorded(
    fresh_home: Path, tmp_path: Path, bad: str
) -> None:
    path = tmp_path / "x.gguf"
    names = {"taken": NAME, "taken but for case": NAME.upper(), "a bad name": "../x"}
    words = ["--name", {**names, "a device": "nul"}[bad]] if bad not in PATHS else []
    if bad == "a folder":
        path.mkdir()
    elif bad == "no gguf":
        path.write_bytes(b"PK\x03\x04")
    elif words:
        path = DEMO
    message = run("import", str(path), *words, code=1).stderr
    assert message.splitlines()[-1].startswith("edgesppo: ")
    assert not (fresh_home / "models.lock").exists()


def test_without_a_model_it_is_the_last_one_else_the_real_one_else_the_demo(
    hub: FakeHub, demo_gguf: Path
) -> None:
    result = run("run", "Hi", "--max-tokens", "1")
    assert f"tiny demo model. For the real one: edgesppo pull {NAME} --convert" in result.stderr
    pull()
    assert locate.default().name == NAME
    run("run", str(demo_gguf), "Hi", "--max-tokens", "1")
    assert user_state.last() == str(demo_gguf)
    result = run("run", "Hi", "--max-tokens", "1")
    assert f"Using {demo_gguf.stem} ({demo_gguf})" in result.stderr
    run("run", "demo", "Hi", "--max-tokens", "1")
    assert user_state.last() == "demo"
    user_state.set_last("a model that is gone")
    assert locate.default().name == NAME
    user_state.path().write_text("[" * 10_000)
    assert locate.default().name == NAME
    assert hub.url


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(hub: FakeHub, fresh_home: Path) -> None:
    fresh_home.chmod(0o500)
    try:
        message = run("pull", NAME, "--accept-license", code=1).stderr
        assert "cannot write" in message.splitlines()[-1]
    finally:
        fresh_home.chmod(0o700)
    assert hub.url


def test_nothing_outside_of_our_folder_is_removed(fresh_home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.gguf").write_bytes(b"1")
    (fresh_home / "converted").symlink_to(outside)
    (outside / "mine.from").write_bytes(bytes(tmp_path / "gone"))
    (rest,) = gc.find_garbage()
    with pytest.raises(errors.OutputError, match="outside of"):
        gc.collect([rest])
    assert (outside / "mine.gguf").exists()


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


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"]).returncode != 0,
    reason="no folder can be made read-only for everyone here",
)
def test_a_store_that_is_read_only_is_used_all_the_same(hub: FakeHub, fresh_home: Path) -> None:
    made = pull("--convert")
    asked = len(hub.requests)
    use = """
import os, sys
from click.testing import CliRunner
from edgesppo.cli import main
assert not os.access(os.environ["EDGESPPO_HOME"], os.W_OK)
for words in (["path", NAME], ["list"], ["pull", NAME], ["run", NAME, "Hi", "--max-tokens", "1"]):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, (words, result.output)
    print(result.stdout)
"""
    words = [sys.executable, "-c", use.replace("NAME", repr(NAME))]
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, str(fresh_home), *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(made)
    assert len(hub.requests) == asked
