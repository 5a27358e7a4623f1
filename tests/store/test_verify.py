"""`verify` names what is damaged, and --repair fetches or makes only that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.cli import verify as cli_verify
from tests.support.pulls import NAME, SECOND, pulled, run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.fake_hub import FakeHub


def test_verify_names_the_damaged_file_and_repair_fetches_only_that(hub: FakeHub) -> None:
    folder = pulled()
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
    pulled("--repair")
    assert (folder / SECOND).read_bytes() == whole
    assert {name for kind, name, _ in hub.requests if kind == "data"} == {SECOND}
    run("verify", NAME)


def test_a_file_without_a_name_can_be_given_one(fresh_home: Path, demo_gguf: Path) -> None:
    assert fresh_home.is_dir()
    said = run("verify", str(demo_gguf), code=1).stderr
    assert f"edgesppo import {demo_gguf}" in " ".join(said.split())


def test_what_is_not_here_is_got_as_everywhere_else(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    said = run("verify", NAME, code=1).stderr
    assert f"to get it: edgesppo pull {NAME} --convert" in " ".join(said.split())


def test_on_a_terminal_verify_offers_to_fetch_what_is_damaged(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pulled()
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


def test_a_damaged_build_is_made_again(hub: FakeHub) -> None:
    made = pulled("--convert")
    whole = made.read_bytes()
    made.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "--convert --repair" in run("verify", NAME, code=1).output
    pulled("--convert", "--repair")
    assert made.read_bytes() == whole
    assert hub.url


def test_a_damaged_build_alone_is_made_again_and_no_checkpoint_is_kept(hub: FakeHub) -> None:
    made = pulled("--convert")
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
    folder, made = pulled(), pulled("--convert")
    whole = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(whole[:-1])
    pulled("--repair")
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
