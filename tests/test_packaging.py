"""What ships: a source distribution that passes its own tests, and of it a wheel of what runs."""

from __future__ import annotations

import faulthandler
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.dev.bootstrap_links import link_packages
from tests.support.paths import ROOT
from tests.support.sweeps import LONG
from tests.support.tracked import GENERATED, copy_tracked, tracked

if TYPE_CHECKING:
    from pathlib import Path

# Of those below edgesppo/ and convert/: what is of use in a checkout only.
NOT_IN_THE_WHEEL = ("edgesppo/dev/",)
# Of what ships, with the helpers of the tests, and of what only a checkout has.
SOME_TESTS = (
    "tests/lockfile/test_toml.py",
    "tests/llama/test_numerics.py::test_logits_equal_the_references",
    "tests/dev/test_bootstrap.py::test_the_pinned_version_is_the_projects",
)


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python with these arguments, and as if this were no test."""
    usual = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "EDGESPPO_"))}
    options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, check=False, env={**usual, **environment}, **options)


def build(kind: str, source: Path, out: Path) -> Path:
    """Build an `sdist` or a `wheel` as pip does, with what is installed here."""
    program = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = run("-c", program, cwd=source)
    assert done.returncode == 0, done.stdout
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution; made of a copy, in which tools and people left things."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("sdist")
    copy_tracked(source)
    left = ("edgesppo/__pycache__/api.cpython-310.pyc", "tests/demo.gguf", ".venv/pyvenv.cfg")
    for name in (*left, "build/lib/edgesppo/api.py", ".hypothesis/examples", "core.1", "notes.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    return build("sdist", source, out)


@pytest.fixture(scope="module")
def sdist(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    done = run("-m", "tarfile", "-e", archive, folder, cwd=folder)
    assert done.returncode == 0, done.stdout
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built of the source distribution."""
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files laid out as an installer lays them out."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder)
    return folder


def in_the_wheel(name: str) -> str | None:
    """The name in the wheel of a file of the project; None if the wheel has no use for it."""
    if name == "models.lock":
        return "edgesppo/pins/models.lock"
    if name.startswith("convert/"):
        return f"edgesppo_{name}"
    ships = name.startswith("edgesppo/") and not name.startswith(NOT_IN_THE_WHEEL)
    return name if ships else None


def test_the_source_distribution_holds_all_that_is_tracked_and_nothing_else(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        names = {member.name.split("/", 1)[1] for member in opened if member.isfile()}
    assert {name for name in names if not name.startswith(GENERATED)} == {*tracked()}


def test_the_source_distribution_keeps_what_may_be_executed(sdist: Path) -> None:
    assert os.access(sdist / ".ci" / "run", os.X_OK)


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert names == {*filter(None, map(in_the_wheel, tracked()))}


def test_the_wheel_carries_the_licence_and_the_readme(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        info = {name.split("/", 1)[1]: name for name in opened.namelist() if ".dist-info/" in name}
        metadata = opened.read(info["METADATA"]).decode()
        assert opened.read(info["licenses/LICENSE"]) == (ROOT / "LICENSE").read_bytes()
    assert metadata.endswith((ROOT / "README.md").read_text(encoding="utf-8"))
    assert "Description-Content-Type: text/markdown\n" in metadata


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
    done = run("-c", program, cwd=tmp_path, EDGESPPO_HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "5" in done.stdout


def environment(folder: Path) -> tuple[Path, Path]:
    """A new environment with nothing in it, and its folder of packages."""
    done = run("-m", "venv", "--without-pip", folder, cwd=folder.parent)
    assert done.returncode == 0, done.stdout
    (packages,) = folder.rglob("site-packages")
    return folder, packages


def errors_of_types(venv: Path, folder: Path) -> str:
    """What mypy says of a user's program, in a folder, that imports what an environment has."""
    pytest.importorskip("mypy", reason="mypy comes with `make check`")
    program = shutil.copy(ROOT / "tests" / "data" / "typed_program.py", folder)
    (python,) = (*venv.glob("bin/python"), *venv.glob("Scripts/python.exe"))
    options = ("--strict", "--config-file=", "--python-executable", python)
    return run("-m", "mypy", *options, program, cwd=folder, MYPYPATH="", PYTHONPATH="").stdout


@pytest.mark.skipif(not LONG, reason="`make check` does so of a checkout; set EDGESPPO_LONG=1")
def test_mypy_finds_the_types_of_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    venv, packages = environment(tmp_path / "venv")
    assert "Cannot find implementation" in errors_of_types(venv, tmp_path)
    shutil.copytree(installed, packages, dirs_exist_ok=True)
    assert errors_of_types(venv, tmp_path).startswith("Success")


@pytest.mark.skipif(not LONG, reason="`make check` does so; set EDGESPPO_LONG=1")
def test_mypy_finds_the_types_of_a_checkout_that_is_set_up(tmp_path: Path) -> None:
    venv, _ = environment(tmp_path / "venv")
    link_packages(venv)
    assert errors_of_types(venv, tmp_path).startswith("Success")


def test_the_source_distribution_passes_its_own_tests(
    sdist: Path, installed: Path, tmp_path: Path
) -> None:
    """Beside its wheel: a few of them; every one where LONG."""
    faulthandler.cancel_dump_traceback_later()  # pytest's own, which is for one test
    options = ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}"]
    if not LONG:
        options += ["-n", "0", "--assert=plain", *SOME_TESTS]  # plain: half the time
    done = run("-m", "pytest", *options, cwd=sdist, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stdout
    assert " error" not in done.stdout
