"""The compiler of the package ziglang: for this machine, and for another one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgesppo.dev.cross_build import TARGETS, main
from edgesppo.native_build.builds import Build
from edgesppo.native_build.pip import Pip
from edgesppo.native_build.ziglang import Ziglang

if TYPE_CHECKING:
    from pathlib import Path


class _Pip(Pip):
    """A pip that installs nothing."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        (scratch / "ziglang").mkdir()

    def run(self, *arguments: object, **options: object) -> None:
        pass


@pytest.mark.skipif(os.name == "nt", reason="the compiler's commands are shell scripts")
def test_another_machine_is_named_to_the_compiler_and_to_no_other_tool(tmp_path: Path) -> None:
    tools = Ziglang(TARGETS["aarch64"]).prepare(_Pip(tmp_path))
    for name in ("CC", "CXX"):
        script = (tmp_path / "ziglang" / tools.environment[name].rsplit("/", 1)[1]).read_text()
        assert "-target aarch64-linux-gnu.2.31 -mcpu=cortex_a76 " in script
    assert "-target" not in (tmp_path / "ziglang" / "ar").read_text()
    assert tools.environment["_PYTHON_HOST_PLATFORM"] == "linux-aarch64"
    assert TARGETS["windows"].environment == {"_PYTHON_HOST_PLATFORM": "win-amd64"}
    assert {"CMAKE_SYSTEM_PROCESSOR=aarch64", "GGML_NATIVE=OFF"} <= {*tools.defines}


@pytest.mark.skipif(os.name == "nt", reason="the compiler's commands are shell scripts")
@pytest.mark.parametrize(("target", "is_told"), [("windows", True), ("aarch64", False)])
def test_for_windows_what_is_visible_is_exported(
    tmp_path: Path, target: str, is_told: bool
) -> None:
    Ziglang(TARGETS[target]).prepare(_Pip(tmp_path))
    for name in ("cc", "c++"):
        script = (tmp_path / "ziglang" / name).read_text()
        assert ("'-Dvisibility(v)=dllexport'" in script) == is_told
    assert "dllexport" not in (tmp_path / "ziglang" / "ar").read_text()


@pytest.mark.skipif(os.name == "nt", reason="the compiler's commands are shell scripts")
def test_this_machine_is_not_named(tmp_path: Path) -> None:
    tools = Ziglang().prepare(_Pip(tmp_path))
    assert "-target" not in (tmp_path / "ziglang" / "cc").read_text()
    assert not any("SYSTEM" in define for define in tools.defines)
    assert "_PYTHON_HOST_PLATFORM" not in tools.environment


def test_each_target_has_a_wheel_of_its_own(fresh_home: Path) -> None:
    compilers = [Ziglang(), *map(Ziglang, TARGETS.values())]
    folders = [Build("0.3.36", compiler, "cpu").folder for compiler in compilers]
    assert len({*folders}) == len(folders)
    assert all(fresh_home in folder.parents for folder in folders)
    assert "aarch64" in folders[1].name


def test_an_unknown_target_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparc"]) == 2
    assert "no target 'sparc'; expected aarch64, aarch64-i8mm" in capsys.readouterr().err
