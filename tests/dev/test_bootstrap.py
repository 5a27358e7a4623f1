"""The first set-up, with a fake Python: an environment is made, filled once, and made anew."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgesppo.dev import bootstrap_setup
from edgesppo.lockfile.toml import tomllib
from edgesppo.native_build import builds, compilers
from tests.support.fake_python import FakePython, set_up
from tests.support.paths import ROOT

ENTRY = ROOT / "edgesppo" / "dev" / "bootstrap.py"


def test_the_pinned_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"llama-cpp-python=={bootstrap_setup.llama_version()}" in project["dependencies"]


def test_an_environment_is_made_and_filled_once(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(fake.venv.parent)
    assert set_up(fake, "test") == 0
    said = capsys.readouterr().err
    assert said.endswith("To have edgesppo on your path: source venv/bin/activate\n")
    made, pip, llama, edgesppo = fake.installed()
    assert "-m venv" in made
    assert "ensurepip" in pip
    assert "llama_cpp_python-0.whl" in llama
    assert f"--editable {ROOT}[test]" in edgesppo
    assert set_up(fake, "test") == 0
    assert fake.calls() == []
    assert not [path for path in fake.venv.iterdir() if path.name.startswith(".edgesppo-s")]


def test_type_checkers_find_the_packages_in_it(fake: FakePython) -> None:
    assert set_up(fake, "check") == 0
    (names,) = fake.venv.rglob("edgesppo-checkout.pth")
    (folder,) = names.read_text().splitlines()
    found = {path.name: path.resolve() for path in Path(folder).iterdir()}
    assert found == {"edgesppo": ROOT / "edgesppo", "edgesppo_convert": ROOT / "convert"}


def test_an_environment_where_no_links_can_be_made_does_without(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("pathlib.Path.symlink_to", fail)
    assert set_up(fake) == 0
    assert "no links can be made in" in capsys.readouterr().err
    assert not [*fake.venv.rglob("*.pth")]
    assert set_up(fake) == 0


def test_it_is_filled_again_for_other_extras_and_for_a_changed_project(fake: FakePython) -> None:
    set_up(fake)
    fake.calls()
    assert set_up(fake, "test") == 0
    assert [("--editable" in line) for line in fake.installed()] == [False, True]
    (fake.venv / ".edgesppo-base").write_text("of another project")
    assert set_up(fake) == 0
    assert len(fake.installed()) == 2


def test_it_is_made_anew_for_another_python(
    fake: FakePython, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(fake)
    (fake.venv / "left.txt").touch()
    fake.behave(python="3.9")
    (fake.venv / ".edgesppo-base").write_text("of another Python")
    assert set_up(fake) == 1  # the fake's new environment is none of this Python either
    assert "anew for Python" in capsys.readouterr().err
    assert not (fake.venv / "left.txt").exists()


def test_one_whose_python_is_gone_is_made_anew(fake: FakePython) -> None:
    set_up(fake)
    fake.calls()
    (fake.venv / "bin" / "python").unlink()
    assert set_up(fake) == 0
    assert "-m venv" in fake.installed()[0]


def test_an_environment_that_lost_its_configuration_is_not_taken_for_one(tmp_path: Path) -> None:
    """Its Python would install into the system's own packages."""
    command = [sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"]
    subprocess.run(command, check=True)
    (pip,) = (tmp_path / "venv").rglob("site-packages")
    (pip / "pip.py").write_text("__version__ = '25.0'")
    set_up = bootstrap_setup._SetUp(tmp_path / "venv", [])
    assert set_up._probe() == (bootstrap_setup._OWN_PYTHON, "25.0")
    (tmp_path / "venv" / "pyvenv.cfg").unlink()
    assert set_up._probe() == ("", "")


def test_a_folder_of_other_files_is_left_as_it_is(
    fake: FakePython, capsys: pytest.CaptureFixture[str]
) -> None:
    (fake.venv / "bin").mkdir(parents=True)
    (fake.venv / "thesis.txt").touch()
    assert set_up(fake) == 1
    assert capsys.readouterr().err == (
        f"{fake.venv} holds other files; VENV=FOLDER makes the environment elsewhere\n"
    )
    locked = fake.venv / ".edgesppo-lock"  # as a set-up that was killed leaves it
    locked.touch()
    clean = ["make", "-f", ROOT / "Makefile", "clean", f"VENV={fake.venv}"]
    subprocess.run(clean, check=True, cwd=fake.root)
    kept = [".edgesppo-lock", "bin", "thesis.txt"]
    assert sorted(path.name for path in fake.venv.iterdir()) == kept
    (fake.venv / "pyvenv.cfg").touch()
    subprocess.run(clean, check=True, cwd=fake.root)
    assert not fake.venv.exists()


def test_what_is_missing_is_named_together_before_anything_is_made(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.keep_a_wheel().unlink()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "ensurepip" or None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(compilers, "ziglang_supports_machine", lambda: False)
    assert set_up(fake) == 1
    venv, compiler = capsys.readouterr().err.splitlines()
    assert f"apt install python{bootstrap_setup._OWN_PYTHON}-venv" in venv
    assert "no C++ compiler found" in compiler
    assert not fake.venv.exists()


@pytest.mark.parametrize("step", ["-m venv", "ensurepip"])
def test_an_environment_that_cannot_be_made_says_why_and_is_made_later(
    fake: FakePython, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    fake.behave({step: {"prints": "Error: no such thing", "exit": 1}})
    assert set_up(fake) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "set-up failed while making the virtual environment: Error: no such thing"
    fake.behave()
    assert set_up(fake) == 0


def test_no_home_at_all_is_a_line(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(builds, "cache_dir", fail)
    assert set_up(fake) == 1
    assert capsys.readouterr().err == "you have no home folder; EDGESPPO_HOME=FOLDER names one\n"


@pytest.mark.parametrize("below", ["", "venv"])
def test_an_environment_that_cannot_be_written_is_named(
    fake: FakePython, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    venv = fake.root / "told" / below
    assert bootstrap_setup.main([str(venv)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cannot write to {venv}: ")
    assert line.endswith("; VENV=FOLDER makes the environment elsewhere")


def test_a_reader_that_went_away_is_no_failure(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("builtins.print", fail)
    assert set_up(fake) == 0


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [
        ((3, 9), 1, "This is Python 3.9; edgesppo runs on 3.10 to 3.13: `make try PYTHON=python3."),
        ((2, 7), 1, "This is Python 2.7; edgesppo runs on 3.10 to 3.13: `make try PYTHON=python3."),
        ((3, 14), 0, "This is Python 3.14; edgesppo runs on 3.10 to 3.13: "),
    ],
)
def test_a_python_that_is_not_supported_is_told_which_are(
    fake: FakePython, version: tuple[int, int], code: int, said: str
) -> None:
    """An older one ends there; a newer one goes on, it may well do."""
    set_up(fake)
    own = (fake.venv / ".edgesppo-base").read_text()
    (fake.root / "python3.11").symlink_to(sys.executable)
    program = (
        f"import runpy, sys; sys.argv = [{str(ENTRY)!r}, {str(fake.venv)!r}]; "
        f"import edgesppo.dev.bootstrap_setup as s; s._fingerprint = lambda _: {own!r}; "
        f"sys.version_info = {(*version, 0, 'final', 0)}; "
        f"runpy.run_path({str(ENTRY)!r}, run_name='__main__')"
    )
    env = os.environ | {"PATH": str(fake.root)}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert ended.stderr.startswith(said)
    assert len(ended.stderr.splitlines()) == 1


def test_an_old_python_can_parse_the_first_file() -> None:
    tree = ast.parse(ENTRY.read_bytes().decode("ascii"), feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.FunctionDef, ast.AsyncFunctionDef)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    assert not [
        n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "__future__"
    ]


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_a_call_without_a_folder_is_answered_with_its_form(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bootstrap_setup.main(words) == 2
    assert not [*tmp_path.iterdir()]
