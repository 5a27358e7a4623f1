"""The first set-up, with a Python whose environments and whose pip are fakes."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgesppo.dev import bootstrap_setup
from edgesppo.lockfile.toml import tomllib
from edgesppo.native_build import child, compilers, wheel
from edgesppo.native_build.failure import Failed
from tests.support.fake_python import FakePython
from tests.support.paths import ROOT

ENTRY = ROOT / "edgesppo" / "dev" / "bootstrap.py"
FULL = "OSError: [Errno 28] No space left on device"
NO_NUMBA = "ERROR: No matching distribution found for numba>=0.60; extra == 'fast'"
CHOICES = ("EDGESPPO_CC", "EDGESPPO_BACKEND", "CC", "CXX")
UNPACKING = "Installing collected packages: numpy, edgesppo"


@pytest.fixture
def fake(tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> FakePython:
    assert fresh_home.is_dir()
    for name in [name for name in os.environ if name.startswith("PIP_") or name in CHOICES]:
        monkeypatch.delenv(name)
    (tmp_path / "fake").mkdir()
    python = FakePython(tmp_path / "fake", tmp_path / "venv")
    monkeypatch.setattr(sys, "_base_executable", str(python.path))
    python.keep_a_wheel()
    return python


def set_up(fake: FakePython, *extras: str) -> int:
    return bootstrap_setup.main([str(fake.venv), *extras])


def test_the_pinned_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"llama-cpp-python=={bootstrap_setup.llama_version()}" in project["dependencies"]


def test_an_environment_is_made_and_filled_once(fake: FakePython) -> None:
    assert set_up(fake, "test") == 0
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
    fake.venv.mkdir()
    (fake.venv / "thesis.txt").touch()
    assert set_up(fake) == 1
    assert capsys.readouterr().err == (
        f"{fake.venv} holds other files; VENV=FOLDER makes the environment elsewhere\n"
    )
    assert [path.name for path in fake.venv.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("pip", ["21.2.3", "22.0.2", "23.0.1"])
def test_an_old_pip_is_brought_up_to_date_before_anything_else(fake: FakePython, pip: str) -> None:
    fake.behave(pip=pip)
    assert set_up(fake) == 0
    assert "install --upgrade pip>=23.1" in fake.installed()[2]


@pytest.mark.parametrize("pip", ["23.1", "26.3"])
def test_a_newer_pip_stays(fake: FakePython, pip: str) -> None:
    fake.behave(pip=pip)
    assert set_up(fake) == 0
    assert not any("--upgrade" in line for line in fake.installed())


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("after connection broken by 'NewConnectionError", "the package index was not reached"),
        ("ERROR: No matching distribution found for pip>=23.1", "ERROR: No matching"),
    ],
)
def test_an_old_pip_that_cannot_be_brought_up_to_date_is_named(
    fake: FakePython, capsys: pytest.CaptureFixture[str], printed: str, said: str
) -> None:
    fake.behave({"--upgrade": {"prints": printed, "exit": 1}}, pip="23.0.1")
    assert set_up(fake) == 1
    *_, shown, line = capsys.readouterr().err.splitlines()
    assert shown == printed
    assert "bringing pip 23.0.1 up to date (23.1 or newer is needed): " + said in line


def test_what_is_missing_is_named_together_before_anything_is_made(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.keep_a_wheel().unlink()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "ensurepip" or None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(compilers, "has_ziglang", lambda: False)
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


def test_only_pips_settings_of_where_packages_are_reach_it(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_ONLY_BINARY", ":all:")
    monkeypatch.setenv("PIP_INDEX_URL", "https://own.example/simple")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    listed = [
        "For variant 'global', will try loading '/etc/pip.conf'",
        "global.index-url='https://overruled.example'",
        "global.proxy='http://overruled.example'",
        "global.user='true'",
        "install.proxy='http://proxy.example'",
        "install.no-binary=':all:'",
    ]
    fake.behave({"config list": {"prints": "\n".join(listed)}})
    assert set_up(fake) == 0
    line, env = fake.calls()[-1]
    assert "--editable" in line
    assert env == {
        "PIP_INDEX_URL": "https://own.example/simple",
        "PIP_PROXY": "http://proxy.example",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "TMPDIR": str(fake.venv / ".edgesppo-scratch"),
    }


def test_a_configuration_that_pip_cannot_read_is_done_without(
    fake: FakePython, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.behave({"config list": {"prints": "ERROR: no section headers", "exit": 1}})
    assert set_up(fake) == 0
    said = "Going on without pip's configuration, which it cannot read: ERROR: no section headers"
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("fails", [False, True])
def test_what_pip_prints_is_shown_only_when_it_fails(
    fake: FakePython, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    lines = [f"WARNING: odd {number}" for number in range(40)]
    fake.behave({"--editable": {"prints": "\n".join(lines), "exit": int(fails)}})
    assert set_up(fake) == int(fails)
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARN")]
    assert shown == (lines[-len(shown) :] if fails else [])
    assert bool(shown) == fails


@pytest.mark.parametrize(
    ("printed", "again"), [("ERROR: it is not there", 2), (f"{UNPACKING}\nERROR: it is torn", 4)]
)
def test_only_a_failure_while_packages_change_makes_the_environment_anew(
    fake: FakePython, printed: str, again: int
) -> None:
    set_up(fake)
    fake.behave({"--editable": {"prints": printed, "exit": 1}})
    assert set_up(fake, "test") == 1
    fake.calls()
    fake.behave()
    assert set_up(fake, "test") == 0
    assert len(fake.installed()) == again
    assert set_up(fake) == 0


def test_numba_is_never_compiled_and_done_without_where_it_has_no_wheel(
    fake: FakePython, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.behave({f"{ROOT}[fast]": {"prints": NO_NUMBA, "exit": 1}})
    assert set_up(fake, "fast") == 0
    with_it, without = fake.installed()[-2:]
    assert "--only-binary numba,llvmlite" in with_it
    assert without.endswith(f"--editable {ROOT}")
    assert capsys.readouterr().err.count("numba") == 1
    assert set_up(fake, "fast") == 0
    assert fake.calls() == []


@pytest.mark.parametrize(
    ("extra", "printed"), [("fast", "ERROR: numba: connection lost"), ("test", NO_NUMBA)]
)
def test_another_failure_is_not_laid_to_numba(
    fake: FakePython, capsys: pytest.CaptureFixture[str], extra: str, printed: str
) -> None:
    fake.behave({"--editable": {"prints": printed, "exit": 1}})
    assert set_up(fake, extra) == 1
    assert capsys.readouterr().err.endswith(f"while installing the packages: {printed}\n")


def test_a_home_that_cannot_be_written_is_named_before_anything_is_made(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = fake.root / "told" / "home"  # below a file
    monkeypatch.setenv("EDGESPPO_HOME", str(home))
    assert set_up(fake) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cannot write to {home}/wheels/")
    assert "Not a directory; EDGESPPO_HOME=FOLDER" in line
    assert not fake.venv.exists()


def test_no_home_at_all_is_a_line(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(wheel, "cache_dir", fail)
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


@pytest.mark.parametrize("step", ["ensurepip", "--upgrade", "pip wheel", "--editable"])
def test_a_full_disk_is_called_that_in_one_line(
    fake: FakePython, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    fake.keep_a_wheel().unlink()
    fake.behave({step: {"prints": f"Traceback ...\n{FULL}", "exit": 1}}, pip="23.0.1")
    assert set_up(fake) == 1
    shown = capsys.readouterr().err
    assert shown.endswith(f": the disk of {fake.venv} is full\n")
    assert "Traceback" not in shown


def test_a_wheel_for_which_there_is_no_room_is_not_kept_by_half(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: int) -> None:
        assert not list(kept.parent.glob("*.whl"))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = fake.keep_a_wheel()
    kept.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert set_up(fake) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"cannot write to {kept.parent}: No space left on device; EDGESPPO_HOME")
    assert list(kept.parent.iterdir()) == []
    assert set_up(fake) == 0


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways to compile, whatever this machine has."""
    monkeypatch.setattr(compilers, "has_ziglang", lambda: True)
    monkeypatch.setattr(
        compilers, "system_compiler", lambda _: compilers.SystemCompiler("cc 9", "cc", "c++")
    )


def compiled(fake: FakePython) -> list[tuple[str, dict[str, str]]]:
    """The calls that got a compiler or compiled."""
    return [(line, env) for line, env in fake.calls() if "ziglang==" in line or "wheel" in line]


@pytest.mark.usefixtures("ways")
def test_a_compiler_of_the_package_index_compiles_without_openmp(fake: FakePython) -> None:
    kept = fake.keep_a_wheel()
    kept.unlink()
    assert set_up(fake) == 0
    (got, _), (made, env) = [call for call in compiled(fake) if "--force" not in call[0]]
    scratch = fake.venv / ".edgesppo-scratch"
    assert f"--target {scratch / 'ziglang'} --no-deps" in got
    assert "GGML_OPENMP=OFF" in made
    assert f"CMAKE_AR={scratch / 'ziglang' / 'ar'}" in made
    assert (env["CC"], env["CXX"]) == tuple(str(scratch / "ziglang" / n) for n in ("cc", "c++"))
    assert env["ZIG_GLOBAL_CACHE_DIR"].startswith(f"{scratch}/")
    assert list(kept.parent.glob("*.whl"))
    assert not scratch.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system's compiler is needed")
def test_no_compiler_is_needed_on_the_path(
    fake: FakePython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilers.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    fake.keep_a_wheel().unlink()
    assert set_up(fake) == 0
    assert any("ziglang==" in line for line, _ in compiled(fake))


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("step", ["ziglang==", "CMAKE_AR", "-I -c import ctypes"])
def test_where_that_compiler_fails_the_systems_is_taken_and_said_in_one_line(
    fake: FakePython, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    fake.keep_a_wheel().unlink()
    fake.behave({step: {"prints": "ERROR: no such thing", "exit": 1}})
    assert set_up(fake) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert line.startswith("Clang of ziglang 0.17.1 failed while ")
    assert line.endswith(": ERROR: no such thing; compiling with the system's instead, cc 9")
    *_, (_, env) = [call for call in compiled(fake) if "pip wheel" in call[0]]
    assert (env["CC"], env["CXX"]) == ("cc", "c++")
    assert set_up(fake) == 0
    assert set_up(fake, "test") == 0  # without another try
    assert not any("ziglang==" in line or "pip wheel" in line for line, _ in fake.calls())


@pytest.mark.usefixtures("ways")
def test_without_room_for_that_compiler_the_systems_is_taken(
    fake: FakePython, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.keep_a_wheel().unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=411_000_000))
    assert set_up(fake) == 0
    assert "has 411 MB: compiling with the system's instead" in capsys.readouterr().err
    assert not any("ziglang==" in line for line, _ in compiled(fake))
    assert set_up(fake, "check") == 0  # takes what was compiled before
    assert not any("pip wheel" in line for line, _ in fake.calls())
    monkeypatch.setenv("EDGESPPO_CC", "zig")
    assert set_up(fake, "test") == 1
    assert "; make room, or install one (Debian" in capsys.readouterr().err


@pytest.mark.usefixtures("ways")
def test_what_was_asked_for_fails_where_it_fails(
    fake: FakePython, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPPO_CC", "zig")
    fake.behave({"ziglang==": {"prints": "ERROR: no such thing", "exit": 1}})
    fake.keep_a_wheel().unlink()
    assert set_up(fake) == 1
    assert capsys.readouterr().err.endswith("(ziglang 0.17.1): ERROR: no such thing\n")


def test_half_a_wheel_is_compiled_again(fake: FakePython) -> None:
    kept = fake.keep_a_wheel()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert set_up(fake) == 0
    compiled = [line for line, _ in fake.calls() if "pip wheel" in line]
    assert len(compiled) == 1
    assert "--no-binary llama-cpp-python" in compiled[0]


def test_the_wheel_is_kept_per_processor_and_build(monkeypatch: pytest.MonkeyPatch) -> None:
    one = wheel.possible_builds("0.3.36")[0].folder
    monkeypatch.setattr(wheel, "_processor", lambda: "another")
    assert wheel.possible_builds("0.3.36")[0].folder != one
    assert os.environ["EDGESPPO_HOME"] in str(one)


def test_it_is_told_what_a_child_is_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    program = (
        "import time; print('  [3/7] Building x.o', flush=True); time.sleep(1.2);"
        "print('Collecting numpy>=1.24', flush=True); time.sleep(1)"
    )
    child.run([sys.executable, "-c", program], os.environ, "trying", "tried")
    shown = capsys.readouterr().err
    assert "  step 3 of 7, " in shown
    assert "  numpy, " in shown
    assert "  tried in " in shown


def test_a_failed_child_tells_its_last_lines() -> None:
    program = "print('error: no such header'); raise SystemExit(1)"
    with pytest.raises(Failed, match="while trying") as caught:
        child.run([sys.executable, "-c", program], os.environ, "trying")
    assert caught.value.lines == ["error: no such header"]


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
