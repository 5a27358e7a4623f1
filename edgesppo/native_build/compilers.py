"""Which compiler compiles llama.cpp: the one that was asked for, ziglang's, or the system's.

    EDGESPPO_CC=zig | system | COMPILER     or CC=COMPILER, as every build takes it
    EDGESPPO_BACKEND=cpu | cuda | vulkan | metal

Clang makes llama.cpp's kernels faster than GCC does, so on Linux the Clang of the Python package
ziglang is taken where nothing else was asked for; the system's compiler if that fails. On a Mac the
system's own is Clang, and the kernels of a GPU need the system's tools.
"""

from __future__ import annotations

import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgesppo.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgesppo.native_build.pip import Pip

ZIG, SYSTEM = "zig", "system"
# A file beside the libraries of our wheel: what compiled them, where they do not tell themselves.
COMPILED_BY = "compiled_by.txt"
BACKENDS = ("cpu", "cuda", "vulkan", "metal")
_ZIG_MACHINES = ("x86_64", "AMD64", "aarch64", "arm64")
# In the order in which CMake looks for them.
_CC, _CXX = ("cc", "gcc", "clang", "cl"), ("c++", "g++", "clang++", "cl")
# A C compiler's name -> what its C++ compiler's name has in its place.
_PLUS = {"clang": "clang++", "gcc": "g++", "cc": "c++", "icx": "icpx"}
_NAME = re.compile(r"^(.*?)(clang|gcc|cc|icx)(-[\d.]+)?(\.exe)?$")
_CUDA = Path("/usr/local/cuda/bin/nvcc")
_TIMEOUT_S = 20.0
_UNKNOWN = "the system's compiler"
INSTALL = (
    "install one (Debian, Ubuntu, Raspberry Pi OS: apt install g++; macOS: xcode-select --install;"
    " Windows: Visual Studio Build Tools)"
)


@dataclass(frozen=True)
class Toolchain:
    """A compiler that is ready: what the build's environment and CMake are told."""

    environment: Mapping[str, str]
    defines: tuple[str, ...] = ()


class Compiler(Protocol):
    """A way to get a compiler."""

    @property
    def identity(self) -> str:
        """Its name and version, for people and for the wheel's key."""

    def prepare(self, pip: Pip) -> Toolchain:
        """Make it ready, in pip's scratch folder. Raises Failed, Interrupted, OSError."""


@dataclass(frozen=True)
class SystemCompiler:
    """One of the system's; `cc` and `cxx` as CMake takes them, empty for those it finds."""

    identity: str
    cc: str = ""
    cxx: str = ""
    is_missing: bool = False

    def prepare(self, pip: Pip) -> Toolchain:  # noqa: ARG002
        """Nothing is to be made ready."""
        named = {"CC": self.cc, "CXX": self.cxx, "CUDACXX": _cuda_compiler()}
        return Toolchain({variable: value for variable, value in named.items() if value})


def backend() -> str:
    """What the kernels run on, as EDGESPPO_BACKEND says; empty for llama.cpp's own choice.

    Raises BuildError for one that is unknown, or whose tools are missing.
    """
    wanted = os.environ.get("EDGESPPO_BACKEND", "").strip().lower()
    if wanted and wanted not in BACKENDS:
        raise BuildError(f"EDGESPPO_BACKEND is {wanted!r}, expected one of {', '.join(BACKENDS)}")
    if wanted == "cuda" and not (_cuda_compiler() or shutil.which("nvcc")):
        raise BuildError(
            "EDGESPPO_BACKEND=cuda needs nvcc, which is not on the PATH; install NVIDIA's CUDA"
            " toolkit, or set CUDACXX to its nvcc"
        )
    if wanted == "vulkan" and not shutil.which("glslc"):
        raise BuildError(
            "EDGESPPO_BACKEND=vulkan needs glslc, which is not on the PATH; install the Vulkan SDK"
            " (Debian, Ubuntu: apt install libvulkan-dev glslc)"
        )
    if wanted == "metal" and sys.platform != "darwin":
        raise BuildError(
            "EDGESPPO_BACKEND=metal is for a Mac; leave it out, or name cuda or vulkan"
        )
    return wanted


def asked_for() -> str:
    """The compiler that the environment names: ZIG, SYSTEM, a command, or empty."""
    variables = ("EDGESPPO_CC", "CC")
    return next(filter(None, (os.environ.get(name, "").strip() for name in variables)), "")


def takes_ziglang(wanted: str, backend: str) -> bool:
    """Whether ziglang's compiler is to be tried. Raises BuildError where it is asked in vain."""
    if wanted == ZIG and backend not in ("", "cpu"):
        raise BuildError(
            f"EDGESPPO_CC=zig makes no kernels for {backend}; leave it out, or name a compiler"
        )
    if wanted == ZIG and sys.platform == "win32":
        raise BuildError("EDGESPPO_CC=zig is for Linux; leave it out: Visual Studio's is taken")
    if wanted == ZIG:
        return True
    named = wanted or os.environ.get("CXX", "").strip()
    return ziglang_supports_machine() and not named and backend in ("", "cpu")


def ziglang_supports_machine() -> bool:
    """Whether ziglang has a compiler for such a machine, and it makes faster kernels there."""
    return sys.platform == "linux" and platform.machine() in _ZIG_MACHINES


def system_compiler(wanted: str = "") -> SystemCompiler:
    """The system's compiler, or the one that is named.

    Raises BuildError for one that was named and is not there.
    """
    if wanted in ("", ZIG, SYSTEM):
        return _unnamed_compiler()
    cxx = os.environ.get("CXX", "").strip() or _cxx_of(wanted)
    for command in (wanted, cxx):
        if not shutil.which(_words(command)[0]):
            raise BuildError(
                f"there is no compiler {command!r}, which EDGESPPO_CC or CC ask for; name one that"
                " is on the PATH (CC its C, CXX its C++), zig or system"
            )
    return SystemCompiler(_version(wanted), wanted, cxx)


def _unnamed_compiler() -> SystemCompiler:
    own = os.environ.get("CXX", "").strip()
    cc, cxx = _first(_CC), own or _first(_CXX)
    is_missing = not cxx or shutil.which(_words(cxx)[0]) is None
    # Visual Studio's is found by CMake, and on the PATH in a window of its own only.
    known = not is_missing and sys.platform != "win32"
    return SystemCompiler(_version(own or cc or cxx) if known else _UNKNOWN, "", own, is_missing)


def _first(names: tuple[str, ...]) -> str:
    return next(filter(shutil.which, names), "")


def _words(command: str) -> list[str]:
    """A command's program and arguments; the path of a program may have spaces, as CMake has it."""
    return [command] if shutil.which(command) else command.split()


def _cxx_of(cc: str) -> str:
    """The C++ compiler that belongs to a C compiler's command, without the options for C."""
    words = itertools.takewhile(lambda word: not word.startswith("-"), _words(cc))
    *before, program = [*words] or [cc]
    folder, name = os.path.split(program)
    found = _NAME.match(name)
    if found is not None:
        name = f"{found[1]}{_PLUS[found[2]]}{found[3] or ''}{found[4] or ''}"
    return " ".join([*before, os.path.join(folder, name)])  # noqa: PTH118


def _version(command: str) -> str:
    """The first line that a compiler prints of itself; its command if it prints none."""
    try:
        done = subprocess.run(
            [*_words(command), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return command
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines and done.returncode == 0 else command


def _cuda_compiler() -> str:
    """NVIDIA's compiler, where CMake would not look for it."""
    if os.environ.get("CUDACXX") or shutil.which("nvcc"):
        return os.environ.get("CUDACXX", "")
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    nvccs = [Path(folder, "bin", "nvcc") for folder in folders if folder]
    return next((str(nvcc) for nvcc in [*nvccs, _CUDA] if nvcc.is_file()), "")
