"""The wheel of llama-cpp-python, with only what we use of it: compiled once for all Pythons."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.dev.bootstrap_pip import SetupError, say
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from edgesppo.dev.bootstrap_pip import Pip

ADVICE = "EDGESPPO_HOME=FOLDER keeps the compiled llama.cpp elsewhere"
CHECKOUT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
_PIN = re.compile(r'"llama-cpp-python==([0-9.]+)"')
# llama.cpp's `common` library and its tools are most of the compiling, and we load neither.
# With GCC the tile configuration of the AMX kernels is optimised away and their first use is a
# crash (https://github.com/ggml-org/llama.cpp/pull/26954), so they are left out.
_CMAKE = """\
set(LLAMA_BUILD_COMMON OFF)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT MSVC)
  add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
endif()
"""
# A process whose OpenMP threads have computed cannot fork: the child hangs or is aborted. Beside
# other programs ggml's own threads are faster, too.
_DEFINES = ("LLAVA_BUILD=OFF", "GGML_OPENMP=OFF")


def llama_version() -> str:
    """The pinned version of llama-cpp-python, read from pyproject.toml."""
    found = _PIN.search((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    if found is None:
        raise SetupError("pyproject.toml pins no llama-cpp-python")
    return found[1]


def wheel_folder(version: str) -> Path:
    """Where the wheel built for this very machine is kept: it uses all its processor can."""
    build = hashlib.sha256(f"{_processor()}{_CMAKE}{_DEFINES}".encode()).hexdigest()[:12]
    try:
        return cache_dir() / "wheels" / f"{version}-{platform.machine()}-{build}"
    except RuntimeError:
        raise SetupError("you have no home folder; EDGESPPO_HOME=FOLDER names one") from None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    flags = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return flags[0] if flags else platform.processor()


def kept_wheel(folder: Path) -> Path | None:
    """The whole wheel in this folder, if there is one."""
    return next(filter(zipfile.is_zipfile, folder.glob("*.whl")), None)


def compiler_fault() -> str | None:
    """What to install when there is no C++ compiler."""
    own = os.environ.get("CXX", "").split()[:1]
    if any(map(shutil.which, [*own, "c++", "g++", "clang++", "cl"])):
        return None
    return (
        "no C++ compiler found; install one (Debian, Ubuntu, Raspberry Pi OS: apt install "
        "g++; macOS: xcode-select --install; Windows: Visual Studio Build Tools)"
    )


def cannot_write(where: Path, error: OSError, advice: str) -> str:
    """A line for an error of the system's."""
    return f"cannot write to {where}: {error.strerror or error}; {advice}"


def compile_wheel(pip: Pip, version: str, folder: Path) -> Path:
    """Compile the wheel and put it whole into the folder; raises Failed, Interrupted, OSError."""
    say(f"Compiling llama.cpp (llama-cpp-python {version}) for this machine, once: some minutes")
    options = pip.scratch / "edgesppo.cmake"
    options.write_text(_CMAKE)
    made = pip.scratch / "wheel"
    pip.run(
        *("wheel", "--verbose", "--no-deps", "--wheel-dir", made),
        # Nobody's wheel of other options: neither an index's, nor one that pip built before.
        *("--no-binary", "llama-cpp-python", "--no-cache-dir"),
        *(word for define in _DEFINES for word in ("-C", f"cmake.define.{define}")),
        *("-C", f"cmake.define.CMAKE_PROJECT_llama_cpp_INCLUDE={options}"),
        f"llama-cpp-python=={version}",
        doing="compiling llama.cpp",
        done="compiled",
    )
    (wheel,) = made.glob("*.whl")
    return _keep(wheel, folder)


def _keep(wheel: Path, folder: Path) -> Path:
    """Copy the wheel into the folder; it appears there under its name only when it is whole."""
    part = folder / f"{wheel.name}.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            file.write(wheel.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        return part.replace(folder / wheel.name)
    except OSError as error:
        raise SetupError(cannot_write(folder, error, ADVICE)) from error
    finally:
        part.unlink(missing_ok=True)
