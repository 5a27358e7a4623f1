"""`list` tells what is here and how to get what is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.store import gc, layout
from tests.support.pulls import NAME, SECOND, pulled, run, states

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_hub import FakeHub


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
    folder = pulled()
    assert states()[NAME] == "here"
    (folder / SECOND).unlink()
    assert states()[NAME] == "in part"
    pulled("--convert")
    assert states()[NAME] == "converted"
    assert hub.url


def test_an_absent_model_says_how_to_get_it(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    message = run("chat", NAME, code=1).stderr
    assert f"to get it: edgesppo pull {NAME} --convert" in message
    message = run("chat", "owner/unknown", code=1).stderr
    assert "edgesppo pull owner/unknown --convert" in message


def test_the_builds_of_two_platforms_lie_side_by_side(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = pulled("--convert")
    monkeypatch.setattr(layout, "platform_name", lambda: "linux-riscv64")
    there = pulled("--convert")
    assert here != there
    assert here.read_bytes() == there.read_bytes()
    assert not gc.find_garbage(unpinned=True)
    run("rm", NAME, "--yes")
    assert not here.exists()
    assert not there.exists()
    assert hub.url


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"]).returncode != 0,
    reason="no folder can be made read-only for everyone here",
)
def test_a_store_that_is_read_only_is_used_all_the_same(hub: FakeHub, fresh_home: Path) -> None:
    made = pulled("--convert")
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
