"""Which compiler is taken, and under which key what it makes is kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BuildError
from edgesppo.native_build import builds, compilers

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = ("EDGESPPO_CC", "EDGESPPO_BACKEND", "CC", "CXX", "CUDACXX", *builds._FLAGS)


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH, empty."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compilers.sys, "platform", "linux")
    monkeypatch.setattr(compilers.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(compilers, "_CUDA", tmp_path / "none")
    return tmp_path


def add(folder: Path, *names: str, says: str = "{} 13.1") -> None:
    for name in names:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{says.format(name)}'\n")
        program.chmod(0o755)


def identities() -> list[str]:
    return [build.compiler.identity for build in builds.possible_builds("0.3.36")]


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts")
def test_ziglang_comes_first_and_the_systems_compiler_after_it(programs: Path) -> None:
    assert identities() == ["Clang of ziglang 0.17.1"]
    add(programs, "cc", "c++")
    assert identities() == ["Clang of ziglang 0.17.1", "cc 13.1"]


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts")
@pytest.mark.parametrize(
    ("platform", "machine"), [("linux", "armv7l"), ("darwin", "arm64"), ("win32", "AMD64")]
)
def test_elsewhere_the_systems_compiler_is_taken(
    programs: Path, monkeypatch: pytest.MonkeyPatch, platform: str, machine: str
) -> None:
    monkeypatch.setattr(compilers.sys, "platform", platform)
    monkeypatch.setattr(compilers.platform, "machine", lambda: machine)
    (build,) = builds.possible_builds("0.3.36")
    assert build.fault.startswith("no C++ compiler found; install one")
    if platform == "win32":
        return
    add(programs, "clang", "clang++")
    (build,) = builds.possible_builds("0.3.36")
    assert (build.compiler.identity, build.fault) == ("clang 13.1", "")


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts")
@pytest.mark.parametrize("variable", ["CC", "EDGESPPO_CC"])
@pytest.mark.parametrize(
    ("cc", "cxx"),
    [
        ("gcc-14", "g++-14"),
        ("clang", "clang++"),
        ("cc", "c++"),
        ("x86_64-linux-gnu-gcc", "x86_64-linux-gnu-g++"),
    ],
)
def test_a_compiler_can_be_named(
    programs: Path, monkeypatch: pytest.MonkeyPatch, variable: str, cc: str, cxx: str
) -> None:
    monkeypatch.setenv(variable, cc)
    with pytest.raises(BuildError, match=f"there is no compiler '{cc}', which EDGESPPO_CC or CC"):
        identities()
    add(programs, cc, cxx)
    assert compilers.system_compiler(cc) == compilers.SystemCompiler(f"{cc} 13.1", cc, cxx)
    assert identities() == [f"{cc} 13.1"]


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts")
def test_a_command_may_have_options_for_c_and_a_path_with_spaces(programs: Path) -> None:
    add(programs, "ccache", "gcc", "g++")
    named = {"gcc -std=gnu17": "g++", "ccache gcc -std=gnu17": "ccache g++"}
    folder = programs / "my tools"
    folder.mkdir()
    add(folder, "gcc", "g++")
    named[f"{folder}/gcc"] = f"{folder}/g++"
    for command, cxx in named.items():
        found = compilers.system_compiler(command)
        assert (found.cc, found.cxx) == (command, cxx)
        assert found.identity.endswith("13.1")
    with pytest.raises(BuildError, match="there is no compiler '-std=gnu17'"):
        compilers.system_compiler("-std=gnu17")


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts")
def test_ours_overrules_cc_and_names_each_of_the_two(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(programs, "cc", "c++", "gcc-12", "g++-12")
    monkeypatch.setenv("CC", "gcc-12")
    monkeypatch.setenv("EDGESPPO_CC", "zig")
    assert identities() == ["Clang of ziglang 0.17.1"]
    monkeypatch.setenv("EDGESPPO_CC", "system")
    assert identities() == ["cc 13.1"]


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts")
def test_kernels_of_a_gpu_need_the_systems_tools(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(programs, "cc", "c++")
    for backend, tool in (("cuda", "nvcc"), ("vulkan", "glslc")):
        monkeypatch.setenv("EDGESPPO_BACKEND", backend)
        with pytest.raises(BuildError, match=f"EDGESPPO_BACKEND={backend} needs {tool}"):
            identities()
        add(programs, tool)
        (build,) = builds.possible_builds("0.3.36")
        assert build.compiler.identity == "cc 13.1"
        assert f"GGML_{backend.upper()}=ON" in build.defines
    monkeypatch.setenv("EDGESPPO_CC", "zig")
    with pytest.raises(BuildError, match="EDGESPPO_CC=zig makes no kernels for vulkan"):
        identities()
    monkeypatch.setenv("EDGESPPO_BACKEND", "metal")
    with pytest.raises(BuildError, match="is for a Mac"):
        identities()
    monkeypatch.setenv("EDGESPPO_BACKEND", "rocm")
    with pytest.raises(BuildError, match="'rocm', expected one of cpu, cuda, vulkan, metal"):
        identities()


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts")
def test_another_compiler_flag_or_backend_has_a_wheel_of_its_own(
    programs: Path, monkeypatch: pytest.MonkeyPatch, fresh_home: Path
) -> None:
    assert fresh_home.is_dir()
    add(programs, "cc", "c++", "nvcc")
    found = [build.folder for build in builds.possible_builds("0.3.36")]
    for name, value in (("EDGESPPO_CC", "cc"), ("EDGESPPO_BACKEND", "cuda"), ("CFLAGS", "-O1")):
        monkeypatch.setenv(name, value)
        found.append(builds.possible_builds("0.3.36")[0].folder)
    add(programs, "cc", says="{} 13.2")
    found.append(builds.possible_builds("0.3.36")[0].folder)
    assert found[1] == found[2]
    assert len({*found}) == len(found) - 1
