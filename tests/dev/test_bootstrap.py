"""The first set-up, but for the compiling."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.dev import bootstrap
from edgesppo.lockfile.toml import tomllib
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_the_pinned_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"llama-cpp-python=={bootstrap.llama_version()}" in project["dependencies"]


def test_a_set_up_environment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".edgesppo-base-test").write_text(bootstrap._fingerprint())
    monkeypatch.setattr(bootstrap, "_set_up", lambda *_: pytest.fail("it was set up again"))
    assert bootstrap.main([str(tmp_path), "test"]) == 0


def test_another_checkout_or_project_is_set_up_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".edgesppo-base").write_text("something else")
    done: list[object] = []
    monkeypatch.setattr(bootstrap, "_set_up", lambda *arguments: done.append(arguments))
    assert bootstrap.main([str(tmp_path)]) == 0
    assert done == [(tmp_path, [])]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (subprocess.CalledProcessError(1, ["pip", "wheel"]), 1, "set-up failed: pip wheel"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_is_one_line_and_leaves_no_mark(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(bootstrap, "_set_up", fail)
    assert bootstrap.main([str(tmp_path)]) == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_compilation_shows_its_steps_and_on_failure_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.time, "sleep", lambda _: None)
    good = [sys.executable, "-c", "print('  [3/7] Building CXX object x.o')"]
    bootstrap._run_visibly(good, tmp_path / "log")
    assert "compiled in" in capsys.readouterr().err
    bad = [sys.executable, "-c", "print('error: no such header'); raise SystemExit(1)"]
    with pytest.raises(subprocess.CalledProcessError):
        bootstrap._run_visibly(bad, tmp_path / "log")
    assert "error: no such header" in capsys.readouterr().err


def test_without_a_compiler_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SystemExit, match="no C\\+\\+ compiler found"):
        bootstrap._need_compiler()


def test_the_wheel_is_kept_per_processor_and_build(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bootstrap.wheel_folder("0.3.36")
    monkeypatch.setattr(bootstrap, "_processor", lambda: "another")
    assert bootstrap.wheel_folder("0.3.36") != one
    assert os.environ["EDGESPPO_HOME"] in str(one)


def test_an_environment_that_lost_its_configuration_is_not_taken_for_one(tmp_path: Path) -> None:
    """Its Python would install into the system's own packages."""
    command = [sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"]
    subprocess.run(command, check=True)  # pip itself takes seconds to install
    packages = next((tmp_path / "venv").rglob("site-packages"))
    (packages / "pip.py").touch()
    scripts = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    python = tmp_path / "venv" / scripts
    assert bootstrap._has_pip(python)
    (tmp_path / "venv" / "pyvenv.cfg").unlink()
    assert not bootstrap._has_pip(python)
