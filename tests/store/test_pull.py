"""`pull` says what it will take, fetches what is pinned, verifies it, and converts it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.cli import pull as cli_pull
from edgesppo.gguf import gemma2
from edgesppo.lockfile import layers
from edgesppo.store import estimate, layout, locate
from edgesppo.store import pull as obtain
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub
from tests.support.pulls import FOLDER, NAME, SECOND, TOKEN, in_one_line, pinned, pull, run, same

if TYPE_CHECKING:
    import pytest


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


def test_before_a_checkpoint_is_fetched_it_says_how_to_keep_only_the_converted_file(
    hub: FakeHub, fresh_home: Path
) -> None:
    less = re.compile(rf"to keep only about [\d.]+ [kM]B: edgesppo pull {NAME} --convert")
    said = in_one_line(run("pull", NAME, code=1).stderr)
    assert less.search(said)
    assert "then add --accept-license to the same command" in said
    assert not less.search(in_one_line(run("pull", NAME, "--convert", code=1).stderr))
    hub.faults[SECOND] = ["404"]
    pull(code=1)
    assert (fresh_home / FOLDER).exists()
    assert not less.search(in_one_line(pull().stderr)), "a part of it is here already"


def test_what_it_says_of_the_file_before_is_what_is_made(hub: FakeHub) -> None:
    expected = estimate.needs(pinned(), convert=True)
    made = Path(json.loads(pull("--convert", "--json").stdout)["path"])
    assert expected.memory is not None
    assert expected.memory.weights == gemma2.load_summary(made).data_bytes
    assert expected.file >= made.stat().st_size
    assert expected.disk == expected.file + max(file.size for file in pinned().files)
    assert hub.url


def test_another_model_than_gemma_is_refused_before_its_weights_are_fetched(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.folder = shutil.copytree(hub.folder, tmp_path / "other")
    config = hub.folder / "config.json"
    config.write_text(config.read_text().replace("Gemma2ForCausalLM", "LlamaForCausalLM"))
    for words in ([], ["--convert"]):
        message = in_one_line(pull(*words, code=1).stderr)
        assert f"config.json of {REPOSITORY}" in message
        assert "only Gemma2ForCausalLM" in message
    assert not hub.asked(SECOND)


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
    run("rm", NAME, "--yes")
    run("pull", NAME)
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
    (build,) = layers.read().models[NAME].builds
    assert (build.recipe, build.platform) == ("q4_k_m", layout.platform_name())
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
    run("rm", NAME, "--yes")
    pull("--convert")
    assert made.read_bytes() == from_folder
    card = json.loads(run("show", NAME, "--json").stdout)
    assert (card["name"], card["lineage"]["revision"]) == (REPOSITORY.split("/")[1], REVISION)
    assert hub.url


def test_two_machines_that_round_differently_share_a_lock(hub: FakeHub, fresh_home: Path) -> None:
    assert hub.url
    made = Path(json.loads(pull("--convert", "--json").stdout)["path"])
    lock = fresh_home / "models.lock"
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    lock.write_text(lock.read_text().replace(sha256, "0" * 64))
    assert "0" * 64 in run("verify", NAME, code=1).output
    made.unlink()
    said = in_one_line(pull("--convert").stderr)
    assert f"has the sha256 {sha256}, where {'0' * 64} is recorded" in said
    assert {build.sha256 for build in layers.read().models[NAME].builds} == {sha256, "0" * 64}
    run("verify", NAME)
    swapped = lock.read_text().replace(sha256, "?").replace("0" * 64, sha256).replace("?", "0" * 64)
    lock.write_text(swapped)  # as where the other machine was the second one
    run("verify", NAME)
    made.write_bytes(bytes(made.stat().st_size))
    run("verify", NAME, code=1)


def test_a_lock_that_cannot_be_written_is_told_before_the_download(
    hub: FakeHub, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned()
    busy = fresh_home / ".models.lock.busy"
    busy.mkdir()
    assert "cannot write" in pull("--convert", code=1).stderr.splitlines()[-1]
    assert not hub.asked(SECOND)
    busy.rmdir()
    monkeypatch.setattr(layers, "check_writable", busy.mkdir)  # it fails at the end only
    last = pull("--convert", code=1).stderr.splitlines()[-1]
    path = layout.build_path(pinned())
    assert last.endswith(f"to use it as it is: edgesppo chat {path}")
    assert locate.find(path).path == path


def test_a_disk_without_room_is_told_before_the_first_byte(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "free_bytes", lambda: 1000)
    assert "not enough disk space" in pull(code=1).stderr.splitlines()[-1]
    assert {name for kind, name, _ in hub.requests if kind == "data"} <= {
        "config.json",
        "README.md",
    }


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
