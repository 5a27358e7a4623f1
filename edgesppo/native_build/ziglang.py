"""A C++ compiler from the package index: the Clang that the Python package ziglang carries.

It is unpacked into the scratch folder, used, and removed with that; a system needs no compiler.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.native_build.compilers import Toolchain

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.native_build.pip import Pip

VERSION = "0.17.1"
# What the package, its caches and the build take on the disk.
ROOM = 900_000_000
# It is a C library, a C++ library and compilers in one, and compiles the libraries when it needs
# them. With a static library inside llama.cpp CMake asks for an archiver, too.
_TOOLS = {"cc": "cc", "c++": "c++", "ar": "ar", "ranlib": "ranlib"}
_COMPILES = ("cc", "c++")
# For MinGW llama.cpp marks what a library offers as visible only. With nothing marked as exported,
# the linker exports all, Zig's own `atexit` too, of which the next library then has two.
_EXPORT = " '-Dvisibility(v)=dllexport'"


@dataclass(frozen=True)
class Target:
    """A machine to compile for that is not this one: any that its processor's features are of."""

    triple: str  # as Zig has it: machine, system, C library and the oldest version of that
    cpu: str  # as Zig has it
    system: str  # as CMake has it
    machine: str  # as CMake and Python's tags of wheels have it

    @property
    def environment(self) -> dict[str, str]:
        """With this variable Python gives a wheel the tags of the target's system."""
        system = {"Windows": "win"}.get(self.system, self.system.lower())
        return {"_PYTHON_HOST_PLATFORM": f"{system}-{self.machine.lower()}"}

    @property
    def defines(self) -> tuple[str, ...]:
        """CMake's variables."""
        return (
            f"CMAKE_SYSTEM_NAME={self.system}",
            f"CMAKE_SYSTEM_PROCESSOR={self.machine}",
            "GGML_NATIVE=OFF",  # else it asks this machine for its features
        )


@dataclass(frozen=True)
class Ziglang:
    """The compiler of the package ziglang; for this machine, if no target is given."""

    target: Target | None = None

    @property
    def identity(self) -> str:
        """Its name and version, and what it compiles for."""
        name = f"Clang of ziglang {VERSION}"
        return f"{name} for {self.target.triple} {self.target.cpu}" if self.target else name

    def prepare(self, pip: Pip) -> Toolchain:
        """Unpack it. Raises Failed, Interrupted, OSError."""
        folder = pip.scratch / "ziglang"
        pip.run(
            *("install", "--target", folder, "--no-deps", "--only-binary", ":all:"),
            *("--no-cache-dir", f"ziglang=={VERSION}"),
            doing=f"unpacking the compiler (ziglang {VERSION})",
            done="fetched its compiler",
        )
        target = self.target
        for name, command in _TOOLS.items():
            if target is not None and command in _COMPILES:
                command += f" -target {target.triple} -mcpu={target.cpu}"
                command += _EXPORT if target.system == "Windows" else ""
            _write_script(folder / name, folder / "ziglang" / "zig", command)
        caches = dict.fromkeys(
            ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(pip.scratch / "zig-cache")
        )
        return Toolchain(
            {
                "CC": str(folder / "cc"),
                "CXX": str(folder / "c++"),
                **caches,
                **(target.environment if target else {}),
            },
            (
                f"CMAKE_AR={folder / 'ar'}",
                f"CMAKE_RANLIB={folder / 'ranlib'}",
                *(target.defines if target else ()),
            ),
        )


def _write_script(path: Path, zig: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(str(zig))} {command} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
