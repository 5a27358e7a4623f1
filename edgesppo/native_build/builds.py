"""The ways to compile llama.cpp for this machine: compilers, options, and where a wheel is kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BuildError
from edgesppo.native_build import compilers, ziglang
from edgesppo.native_build.compilers import SystemCompiler
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from edgesppo.native_build.compilers import Compiler

# llama.cpp's `common` library and its tools are most of the compiling, and we load neither.
# With GCC the tile configuration of the AMX kernels is optimised away and their first use is a
# crash (https://github.com/ggml-org/llama.cpp/pull/26954), so they are left out.
_CMAKE = """\
set(LLAMA_BUILD_COMMON OFF)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT MSVC)
  add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
  if(UNIX)
    set(edgesppo_wait "${CMAKE_CURRENT_BINARY_DIR}/edgesppo_wait.h")
    file(WRITE "${edgesppo_wait}" [[%s]])
    add_compile_options("$<$<COMPILE_LANGUAGE:C>:SHELL:-include \\"${edgesppo_wait}\\">")
  endif()
endif()
"""
# ggml's threads wait for each other by `_mm_pause` alone. While another program has the processor
# of one, the others would spin for all of its time slice: so every 1,024th time they offer theirs.
_WAIT = """
#include <immintrin.h>
#include <sched.h>
static inline void edgesppo_wait(void) {
    static __thread unsigned n;
    _mm_pause();
    if ((++n & 1023u) == 0) {
        sched_yield();
    }
}
#define _mm_pause() edgesppo_wait()
"""
# A process whose OpenMP threads have computed cannot fork: the child hangs or is aborted. Beside
# other programs ggml's own threads are faster, too.
_DEFINES = ("LLAVA_BUILD=OFF", "GGML_OPENMP=OFF")
_BACKEND_DEFINES = {
    "": (),
    "cpu": ("GGML_METAL=OFF",) if sys.platform == "darwin" else (),
    "cuda": ("GGML_CUDA=ON",),
    "vulkan": ("GGML_VULKAN=ON",),
    "metal": ("GGML_METAL=ON",),
}
# Variables with options for compilers, linkers and CMake.
_FLAGS = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CUDAFLAGS", "CMAKE_ARGS", "CUDAARCHS")
_FAILED = "failed"


@dataclass(frozen=True)
class Build:
    """One way to compile llama.cpp for this machine."""

    version: str  # of llama-cpp-python
    compiler: Compiler
    backend: str

    @property
    def folder(self) -> Path:
        """Where its wheel is kept: by compiler, flags and processor, of which it uses all it can.

        Raises BuildError if there is no home folder.
        """
        processor = str(self.target) if self.target else _processor()
        parts = (processor, _CMAKE, _WAIT, self.defines, self.compiler.identity)
        flags = [os.environ.get(name, "") for name in _FLAGS]
        key = hashlib.sha256(f"{parts}{flags}".encode(errors="surrogateescape")).hexdigest()[:12]
        machine = self.target.machine if self.target else platform.machine()
        return wheels_dir() / f"{self.version}-{machine}-{key}"

    @property
    def target(self) -> ziglang.Target | None:
        """The machine that it is for; None for this one."""
        return self.compiler.target if isinstance(self.compiler, ziglang.Ziglang) else None

    @property
    def defines(self) -> tuple[str, ...]:
        """CMake's variables."""
        return (*_DEFINES, *_BACKEND_DEFINES[self.backend])

    @property
    def fault(self) -> str:
        """What is to be installed first; empty if nothing is."""
        missing = isinstance(self.compiler, SystemCompiler) and self.compiler.is_missing
        return f"no C++ compiler found; {compilers.INSTALL}" if missing else ""

    @property
    def failure(self) -> str:
        """Why it failed the last time; empty if it did not."""
        try:
            return (self.folder / _FAILED).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""

    def note_failure(self, reason: str) -> None:
        """Note that it failed: the next set-up takes another; `edgesppo build` tries again."""
        with contextlib.suppress(OSError):  # then it is tried again
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _FAILED).write_text(f"{reason}\n", encoding="utf-8")

    def forget_failure(self) -> None:
        """It works now."""
        (self.folder / _FAILED).unlink(missing_ok=True)


def wheels_dir() -> Path:
    """The folder of all compiled wheels. Raises BuildError if there is no home folder."""
    try:
        return cache_dir() / "wheels"
    except RuntimeError:
        raise BuildError("you have no home folder; EDGESPPO_HOME=FOLDER names one") from None


def possible_builds(version: str) -> list[Build]:
    """The ways to compile here, at least one, in the order in which they are tried.

    Raises BuildError for settings that cannot be followed.
    """
    backend, wanted = compilers.backend(), compilers.asked_for()
    system = compilers.system_compiler(wanted)
    found: list[Compiler] = [system]
    if compilers.takes_ziglang(wanted, backend):
        alone = wanted == compilers.ZIG or system.is_missing
        found = [ziglang.Ziglang()] if alone else [ziglang.Ziglang(), system]
    return [Build(version, compiler, backend) for compiler in found]


def recipe() -> str:
    """What llama.cpp's own CMake project is told before anything else."""
    return _CMAKE % _WAIT


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    flags = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return flags[0] if flags else platform.processor()
