"""The wheel of llama.cpp: which compiler makes it, and where it is kept."""

from __future__ import annotations

import errno
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edgesppo.native_build import builds, compilers
from tests.support.fake_python import FakePython, set_up

if TYPE_CHECKING:
    from pathlib import Path


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
    monkeypatch.setattr(compilers, "ziglang_supports_machine", lambda: True)
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
    assert set_up(fake, "test") == 0  # without another try, but of what could not be fetched
    done = [line for line, _ in fake.calls()]
    assert any("ziglang==" in line for line in done) == (step == "ziglang==")
    assert not any("pip wheel" in line for line in done)


@pytest.mark.usefixtures("ways")
def test_a_kept_wheel_that_does_not_load_here_is_compiled_anew(
    fake: FakePython, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a home folder that a container with another C library shares."""
    kept = fake.keep_a_wheel()
    fake.behave({"-I -c import ctypes": {"prints": "version `GLIBC_2.99' not found", "exit": 1}})
    assert set_up(fake) == 0
    assert f"The llama.cpp in {kept.parent} does not load here" in capsys.readouterr().err
    assert any("pip wheel" in line for line, _ in compiled(fake))
    fake.behave({})
    kept = fake.keep_a_wheel()
    data = bytearray(kept.read_bytes())
    data[-len(data) // 4 * 3] ^= 255  # damaged on its disk
    kept.write_bytes(data)
    assert set_up(fake, "test") == 0
    assert f"The llama.cpp in {kept.parent} does not load here" in capsys.readouterr().err


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
    one = builds.possible_builds("0.3.36")[0].folder
    monkeypatch.setattr(builds, "_processor", lambda: "another")
    assert builds.possible_builds("0.3.36")[0].folder != one
    assert os.environ["EDGESPPO_HOME"] in str(one)
