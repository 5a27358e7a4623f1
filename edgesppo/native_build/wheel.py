"""The wheel of llama-cpp-python, with only what we use of it: compiled once for all Pythons."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BuildError
from edgesppo.native_build import compilers, ziglang
from edgesppo.native_build.child import run, say
from edgesppo.native_build.compilers import SystemCompiler
from edgesppo.native_build.failure import Failed
from edgesppo.system.paths import cache_dir
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo.native_build.compilers import Compiler, Toolchain
    from edgesppo.native_build.pip import Pip

ADVICE = "EDGESPPO_HOME=FOLDER keeps the compiled llama.cpp elsewhere"
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
_PROGRAM = """\
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.llama_backend_init()
library.llama_print_system_info.restype = ctypes.c_char_p
print(library.llama_print_system_info().decode())
"""


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


def kept_wheel(builds: Sequence[Build]) -> Path | None:
    """The wheel of the first build, or of a later one if those before it failed."""
    for build in builds:
        if wheel := _kept(build):
            return wheel
        if not build.failure:
            return None
    return None


def loadable(pip: Pip, builds: Sequence[Build], kept: Path | None) -> Path | None:
    """The kept wheel of one of these builds if it loads here; else it is removed, and None.

    A home folder may come from a machine, or a container, with another C library.
    """
    for build in builds:
        if kept is not None and build.folder == kept.parent:
            try:
                _try_out(pip, build, kept)
            except (Failed, zipfile.BadZipFile, zlib.error):
                say(f"The llama.cpp in {kept.parent} does not load here: it is compiled anew")
                kept.unlink()
                return None
    return kept


def _kept(build: Build) -> Path | None:
    return next(filter(zipfile.is_zipfile, build.folder.glob("*.whl")), None)


def compile_wheel(pip: Pip, builds: Sequence[Build]) -> Path:
    """Compile the wheel and keep it; where one way fails, the next one is tried.

    Raises Failed, Interrupted, BuildError, OSError.
    """
    version = builds[0].version
    say(f"Compiling llama.cpp (llama-cpp-python {version}) for this machine, once: some minutes")
    # A way failed for good if another works: what could not be fetched may come the next time.
    failed: dict[Build, str] = {}
    for number, build in enumerate(builds, 1):
        following = builds[number].compiler.identity if builds[number:] else ""
        instead = f"compiling with the system's instead, {following}"
        if number > 1 and (wheel := _kept(build)):
            return wheel
        if fault := _room_fault(build, pip.scratch):
            if not following:
                raise BuildError(f"{fault}; make room, or {compilers.INSTALL}")
            say(f"{fault}: {instead}")
            continue
        tools = None
        try:
            tools = build.compiler.prepare(pip)
            wheel = _compile(pip, build, tools)
        except (Failed, OSError) as error:
            if not following:
                raise
            reason = _reason(error, pip.scratch)
            say(f"{build.compiler.identity} failed {reason}; {instead}")
            if tools is not None:
                failed[build] = reason
        else:
            _note_failures(failed)
            return wheel
    raise BuildError("there is no way to compile llama.cpp")


def _room_fault(build: Build, scratch: Path) -> str:
    if not isinstance(build.compiler, ziglang.Ziglang):
        return ""
    free = shutil.disk_usage(scratch).free
    if free >= ziglang.ROOM:
        return ""
    return (
        f"{build.compiler.identity} takes {megabytes(ziglang.ROOM, 0)} while it compiles, and the"
        f" disk of {scratch.parent} has {megabytes(free, 0)}"
    )


def _reason(error: Failed | OSError, scratch: Path) -> str:
    if isinstance(error, Failed):
        return f"{error}: {error.summary(scratch.parent)}"
    return f"with {error.filename}: {error.strerror or error}"


def _note_failures(failed: Mapping[Build, str]) -> None:
    """Note that builds failed: the next set-up takes another; `edgesppo build` tries again."""
    for build, reason in failed.items():
        with contextlib.suppress(OSError):  # then it is tried again
            build.folder.mkdir(parents=True, exist_ok=True)
            (build.folder / _FAILED).write_text(f"{reason}\n", encoding="utf-8")


def _compile(pip: Pip, build: Build, tools: Toolchain) -> Path:
    options = pip.scratch / "edgesppo.cmake"
    options.write_text(recipe())
    made = pip.scratch / "wheel"
    shutil.rmtree(made, ignore_errors=True)
    defines = (
        *build.defines,
        *tools.defines,
        f"CMAKE_PROJECT_llama_cpp_INCLUDE={options}",
    )
    pip.run(
        *("wheel", "--verbose", "--no-deps", "--wheel-dir", made),
        # Nobody's wheel of other options: neither an index's, nor one that pip built before.
        *("--no-binary", "llama-cpp-python", "--no-cache-dir"),
        *(w for define in defines for w in ("--config-settings", f"cmake.define.{define}")),
        f"llama-cpp-python=={build.version}",
        doing="compiling llama.cpp",
        done=f"compiled by {build.compiler.identity}",
        environment=tools.environment,
    )
    (wheel,) = made.glob("*.whl")
    _try_out(pip, build, wheel)
    if isinstance(build.compiler, ziglang.Ziglang):
        note_compiler(wheel, build.compiler.identity)
    return _keep(wheel, build.folder)


def note_compiler(wheel: Path, identity: str) -> None:
    """Say in the wheel what compiled it: the linker of ziglang leaves out what Clang says."""
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(f"llama_cpp/lib/{compilers.COMPILED_BY}", f"{identity}\n")


def _try_out(pip: Pip, build: Build, wheel: Path) -> None:
    """Load ziglang's library in a process of its own; raises Failed if it ends that."""
    if not isinstance(build.compiler, ziglang.Ziglang) or build.target is not None:
        return
    folder = pip.scratch / "tried"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    names = ("libllama.so", "libllama.dylib")
    files = [folder / "llama_cpp" / "lib" / name for name in names]
    library = next((file for file in files if file.exists()), files[0])
    run([str(pip.python), "-I", "-c", _PROGRAM, library], os.environ, "loading what was compiled")


def cannot_write(where: Path, error: OSError, advice: str) -> str:
    """A line for an error of the system's."""
    return f"cannot write to {where}: {error.strerror or error}; {advice}"


def _keep(wheel: Path, folder: Path) -> Path:
    """Copy the wheel into the folder; it appears there under its name only when it is whole."""
    part = folder / f"{wheel.name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(wheel.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        kept = part.replace(folder / wheel.name)
        (folder / _FAILED).unlink(missing_ok=True)
        return kept
    except OSError as error:
        raise BuildError(cannot_write(folder, error, ADVICE)) from error
    finally:
        part.unlink(missing_ok=True)
