"""`edgesppo build`: llama.cpp is compiled anew into the environment that runs it."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.native_build import compilers, install
from tests.support.command_line import one_line_error, run
from tests.support.fake_python import FakePython

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake Python is a script")


@pytest.fixture
def fake(tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> FakePython:
    """The environment's Python; its pip writes down what it was told."""
    assert fresh_home.is_dir()
    for name in ("EDGESPPO_CC", "EDGESPPO_BACKEND", "CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "fake").mkdir()
    python = FakePython(tmp_path / "fake", tmp_path / "venv")
    monkeypatch.setattr(sys, "executable", str(python.path))
    monkeypatch.setattr(compilers, "ziglang_supports_machine", lambda: True)
    monkeypatch.setattr(
        compilers, "system_compiler", lambda _: compilers.SystemCompiler("cc 9", "cc", "c++")
    )
    return python


def lines(fake: FakePython) -> list[str]:
    return [line for line, _ in fake.calls()]


def test_it_is_compiled_once_and_installed_each_time(fake: FakePython) -> None:
    result = run("build")
    assert result.exit_code == 0
    assert result.stdout.endswith(" by Clang of ziglang 0.17.1\n")
    assert "compiled in" in result.stdout
    done = lines(fake)
    assert "install --no-deps --force-reinstall" in done[-1]
    assert any("pip wheel" in line for line in done)
    again = json.loads(run("build", "--json").stdout)
    assert (again["compiled"], again["compiler"]) == (False, "Clang of ziglang 0.17.1")
    done = lines(fake)
    assert "install --no-deps --force-reinstall" in done[-1]
    assert not any("pip wheel" in line for line in done)
    assert json.loads(run("build", "--json", "--force").stdout)["compiled"]
    assert not [*install.wheels_dir().glob(".*")]


def test_a_dry_run_only_tells(fake: FakePython) -> None:
    version = install.pinned_version()
    said = f"would compile llama-cpp-python {version} by Clang of ziglang 0.17.1, or if that fails"
    assert run("build", "--dry-run").stdout == f"{said} by cc 9\n"
    fake.keep_a_wheel()
    assert "would install" in run("build", "--dry-run").stdout
    found = json.loads(run("build", "--dry-run", "--force", "--json").stdout)
    assert (found["compile"], found["kept"]) == (True, None)
    assert lines(fake) == []


def test_nothing_is_compiled_that_could_not_be_installed(
    fake: FakePython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "frozen", True, raising=False)
        assert "make it anew: make bundle" in one_line_error(run("build"))
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(install.sysconfig, "get_path", lambda _: str(tmp_path))
    assert run("build", "--dry-run").exit_code == 0, "a virtual environment is the user's own"
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    assert "-m venv FOLDER" in one_line_error(run("build"))
    assert lines(fake) == []


def test_it_is_silent_when_asked(fake: FakePython) -> None:
    result = run("build", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines(fake)


def test_a_compiler_that_failed_before_is_tried_again(fake: FakePython) -> None:
    fake.behave({"ziglang==": {"prints": "ERROR: no such thing", "exit": 1}})
    result = run("build")
    assert "failed while unpacking the compiler" in result.stderr
    assert result.stdout.endswith("by cc 9\n")
    fake.behave()
    assert run("build").stdout.endswith("by Clang of ziglang 0.17.1\n")


def test_a_failure_is_one_line_after_what_was_printed(fake: FakePython) -> None:
    fake.behave({"pip wheel": {"prints": "ERROR: no such header", "exit": 1}})
    result = run("build", "--compiler", "zig")
    *_, shown, line = result.stderr.splitlines()
    assert shown == "ERROR: no such header"
    assert line == "edgesppo: build failed while compiling llama.cpp: ERROR: no such header"


def test_a_python_without_a_usable_pip_is_told_how_to_get_one(fake: FakePython) -> None:
    fake.behave(pip="22.0.2")
    assert "pip 22.0.2 is too old, 22.1 or newer is needed: " in one_line_error(run("build"))
    fake.behave({"import pip": {"prints": "No module named pip", "exit": 1}})
    assert " -m ensurepip" in one_line_error(run("build"))


def test_offline_only_what_was_compiled_before_is_installed(fake: FakePython) -> None:
    said = one_line_error(run("build", "--offline"))
    assert said.startswith("edgesppo: EDGESPPO_OFFLINE is set")
    assert lines(fake) == []
    fake.keep_a_wheel()
    assert "compiled before by" in run("build", "--offline").stdout


def test_a_folder_that_cannot_be_written_is_named(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPPO_HOME", str(fake.root / "told"))  # a file
    assert "cannot write to" in one_line_error(run("build"))


def test_ctrl_c_ends_it_and_leaves_nothing(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        from edgesppo.native_build import child

        child.check_signals()

    monkeypatch.setattr(install, "compile_wheel", press)
    result = run("build")
    assert result.exit_code == 130
    assert result.stderr.endswith(
        "build interrupted, cleaning up; the same command goes on with it\n"
    )
    assert not [*install.wheels_dir().glob(".*")]
    assert lines(fake)
