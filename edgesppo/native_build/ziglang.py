"""A C++ compiler from the package index: the Clang that the Python package ziglang carries.

It is unpacked into the scratch folder, used, and removed with that; a system needs no compiler.
"""

from __future__ import annotations

import shlex
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


class Ziglang:
    """The compiler of the package ziglang."""

    identity = f"Clang of ziglang {VERSION}"

    def prepare(self, pip: Pip) -> Toolchain:
        """Unpack it. Raises Failed, Interrupted, OSError."""
        folder = pip.scratch / "ziglang"
        pip.run(
            *("install", "--target", folder, "--no-deps", "--only-binary", ":all:"),
            *("--no-cache-dir", f"ziglang=={VERSION}"),
            doing=f"unpacking the compiler (ziglang {VERSION})",
        )
        for name, command in _TOOLS.items():
            _write_script(folder / name, folder / "ziglang" / "zig", command)
        caches = dict.fromkeys(
            ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(pip.scratch / "zig-cache")
        )
        return Toolchain(
            {"CC": str(folder / "cc"), "CXX": str(folder / "c++"), **caches},
            (f"CMAKE_AR={folder / 'ar'}", f"CMAKE_RANLIB={folder / 'ranlib'}"),
        )


def _write_script(path: Path, zig: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(str(zig))} {command} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
