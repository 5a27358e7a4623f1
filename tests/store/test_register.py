"""The name of an imported file: its own, or what it says of itself where that is only a hash."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgesppo.gguf import gemma2
from edgesppo.store.register import own_title
from tests.support.command_line import one_line_error, run

if TYPE_CHECKING:
    from pathlib import Path

BLOB = "sha256-" + "0123456789abcdef" * 4


def _said_name(file: Path, name: str) -> Path:
    """Replace the general.name of a copy of the demo, whose length stays."""
    whole = file.read_bytes()
    title = gemma2.load_summary(file).keys["general.name"].encode()
    assert len(name.encode()) <= len(title)
    file.write_bytes(whole.replace(title, name.encode().ljust(len(title)), 1))
    return file


@pytest.fixture
def blob(tmp_path: Path, demo_gguf: Path) -> Path:
    folder = tmp_path / "models" / "blobs"
    folder.mkdir(parents=True)
    return shutil.copy(demo_gguf, folder / BLOB)


def test_an_ollama_blob_is_named_by_what_it_says_of_itself(fresh_home: Path, blob: Path) -> None:
    assert fresh_home.is_dir()
    entry = json.loads(run("import", _said_name(blob, "A 2B"), "--json").stdout)
    assert entry["name"] == "a-2b"
    assert entry["location"] == str(blob.parent)
    assert run("path", "a-2b").stdout == f"{blob}\n"
    assert "sha256" not in run("list").stdout


@pytest.mark.parametrize("said", ["", "\u6a21\u578b", "--", "aux", "a" * 32, "sha256-" + "0" * 40])
def test_a_blob_that_says_nothing_of_use_is_named_by_its_kind_and_size(
    fresh_home: Path, blob: Path, said: str
) -> None:
    assert fresh_home.is_dir()
    summary = gemma2.load_summary(blob)
    keys = {"general.name": said}
    assert own_title(blob, replace(summary, keys=keys)) == "gemma2-3.8m"
    keys |= {"general.basename": "gemma-2", "general.size_label": "9B"}
    assert own_title(blob, replace(summary, keys=keys)) == "gemma-2-9B"


@pytest.mark.parametrize("name", ["toy.gguf", "Toy", "cafe.gguf", "sha256.gguf"])
def test_another_file_keeps_its_own_name(
    fresh_home: Path, tmp_path: Path, demo_gguf: Path, name: str
) -> None:
    assert fresh_home.is_dir()
    file = shutil.copy(demo_gguf, tmp_path / name)
    entry = json.loads(run("import", file, "--json").stdout)
    assert entry["name"] == name.removesuffix(".gguf").lower()


@pytest.mark.parametrize("name", [BLOB, BLOB.replace("-", "_"), BLOB[7:], BLOB[7:47] + ".gguf"])
def test_every_form_of_a_hash_is_known_for_one(demo_gguf: Path, tmp_path: Path, name: str) -> None:
    summary = gemma2.load_summary(demo_gguf)
    assert own_title(tmp_path / name, summary) == summary.keys["general.name"]


def test_a_name_that_is_taken_asks_for_another(fresh_home: Path, blob: Path) -> None:
    assert fresh_home.is_dir()
    assert "choose another: edgesppo import" in one_line_error(
        run("import", _said_name(blob, "demo"))
    )
