"""The wheel: its contents, and that it works outside of the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = ["edgesppo", "convert", "pyproject.toml", "models.lock", "README.md", "LICENSE"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the checkout stays clean."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    # As pip calls it, which would begin by copying and by looking for what else is needed.
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, laid out as an installer does."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_has_these_top_level_packages_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "edgesppo",
        "edgesppo_convert",
    }


def test_the_wheel_carries_the_demo_the_lock_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        pins = archive.read("edgesppo/pins/models.lock")
    assert pins == (ROOT / "models.lock").read_bytes()
    for name in ("config.json", "model.safetensors", "tokenizer.model", "README.md"):
        assert f"edgesppo/demo/{name}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {"edgesppo/py.typed", "edgesppo_convert/py.typed"} <= names


def test_an_installed_wheel_finds_its_lock_and_runs_the_demo(
    installed: Path, tmp_path: Path
) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import edgesppo, edgesppo.lockfile.toml as lock\n"
        "assert edgesppo.__file__.startswith(sys.path[0]), edgesppo.__file__\n"
        "assert str(lock.path()).startswith(sys.path[0]), lock.path()\n"
        "import edgesppo_convert; assert edgesppo_convert.__file__.startswith(sys.path[0])\n"
        "with edgesppo.load('demo') as m: print(m.ask('What is 2 plus 3?', temperature=0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "5" in done.stdout
