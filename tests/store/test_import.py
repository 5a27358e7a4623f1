"""`import` records where a file lies, by its whole path, and refuses what is no model."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import UsageError
from edgesppo.store import imported, locate, register
from tests.conftest import DEMO
from tests.support.fake_hub import REPOSITORY, cached
from tests.support.pulls import NAME, run, states

if TYPE_CHECKING:
    from pathlib import Path


def test_an_import_is_by_reference_and_rm_leaves_the_file(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path
) -> None:
    mine = tmp_path / "My Model.gguf"
    shutil.copy(demo_gguf, mine)
    run("import", str(mine))
    assert locate.find("my-model").path == mine
    assert states()["my-model"] == "here"
    assert {path.name for path in fresh_home.iterdir()} == {"models.lock", "remembered.json"}
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


def test_a_name_goes_on_naming_the_same_file(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path
) -> None:
    assert fresh_home.is_dir()
    one, other = tmp_path / "one two.gguf", tmp_path / "other.gguf"
    for path in (one, other):
        shutil.copy(demo_gguf, path)
    run("import", str(one), "--name", "mine")
    run("import", str(one), "--name", "mine")
    message = run("import", str(other), "--name", "mine", code=1).stderr
    assert f"the name mine is taken by {one}; choose another: edgesppo import {other}" in message
    assert locate.find("mine").path == one


def test_a_models_folder_of_the_hubs_cache_stands_for_its_snapshot(
    fresh_home: Path, tmp_path: Path
) -> None:
    assert fresh_home.is_dir()
    snapshot = cached(DEMO, tmp_path)
    folder = snapshot.parent.parent
    assert locate.find(folder).path == snapshot
    run("import", str(folder))
    assert locate.find(REPOSITORY.split("/")[1].lower()).path == snapshot


@pytest.mark.skipif(os.name == "nt", reason="any folder may have such a name there")
def test_an_import_of_another_system_is_a_missing_one(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shutil.copy(demo_gguf, tmp_path / "mine.gguf")
    run("import", str(mine))
    lock, there = fresh_home / "models.lock", r"C:\models"
    lock.write_text(lock.read_text().replace(json.dumps(str(tmp_path)), json.dumps(there)))
    (tmp_path / there).mkdir()
    shutil.copy(mine, tmp_path / there / "mine.gguf")
    monkeypatch.chdir(tmp_path)
    assert states()["mine"] == "moved"
    assert "no longer exists" in run("run", "mine", "Hi", code=1).stderr
    run("run", "demo", "Hi", "--max-tokens", "1")
    run("rm", "mine")


def test_of_two_imports_at_once_the_second_is_refused(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path
) -> None:
    assert fresh_home.is_dir()
    one, other = (shutil.copy(demo_gguf, tmp_path / name) for name in ("one.gguf", "other.gguf"))

    def import_other(done: int, total: int) -> None:
        if done == total:
            register.register(other, "mine")

    with pytest.raises(UsageError, match=r"the name mine is taken by .*other\.gguf"):
        register.register(one, "mine", import_other)


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


def test_an_import_that_became_another_file_of_the_same_size_is_refused(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fresh_home.is_dir()
    mine, hashed = tmp_path / "mine.gguf", list[str]()
    hash_file = imported.hash_file
    monkeypatch.setattr(
        imported, "hash_file", lambda path, *a: (hashed.append(path.name), hash_file(path, *a))[1]
    )
    shutil.copy(demo_gguf, mine)
    run("import", str(mine))
    locate.find("mine")
    assert hashed == []
    mine.chmod(0o400)
    locate.find("mine")
    assert (hashed, states()["mine"]) == ([], "here")
    mine.chmod(0o600)
    os.utime(mine, (5, 5))  # the same bytes with another time: hashed once
    assert states()["mine"] == "changed?"
    assert "mine.gguf: reading all of it" in run("path", "mine").stderr
    locate.find("mine")
    assert hashed == ["mine.gguf"]
    data = bytearray(mine.read_bytes())
    data[-1] ^= 1
    mine.write_bytes(data)
    for _ in range(2):
        message = run("run", "mine", "Hi", code=1).stderr
        assert "mine, is another file of the same size now; import it again: edgesppo" in message
    mine.rename(tmp_path / "elsewhere.gguf")
    assert states()["mine"] == "moved"
    mine.write_bytes(data[:-1])
    assert states()["mine"] == "changed"
    mine.write_bytes(data)
    run("import", str(mine))
    assert locate.find("mine").path == mine


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
