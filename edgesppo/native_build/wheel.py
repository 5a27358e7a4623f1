"""The wheel of llama-cpp-python, with only what we use of it: compiled, tried out, and kept."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from typing import TYPE_CHECKING

from edgesppo.errors import BuildError
from edgesppo.native_build import compilers, ziglang
from edgesppo.native_build.builds import Build, recipe
from edgesppo.native_build.child import run, say
from edgesppo.native_build.failure import Failed
from edgesppo.system.units import megabytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgesppo.native_build.compilers import Toolchain
    from edgesppo.native_build.pip import Pip

ADVICE = "EDGESPPO_HOME=FOLDER keeps the compiled llama.cpp elsewhere"
_PROGRAM = """\
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.llama_backend_init()
library.llama_print_system_info.restype = ctypes.c_char_p
print(library.llama_print_system_info().decode())
"""


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
            for unusable, reason in failed.items():
                unusable.note_failure(reason)
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
    return _keep(wheel, build)


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


def _keep(wheel: Path, build: Build) -> Path:
    """Copy the wheel into its folder; it appears there under its name only when it is whole."""
    folder = build.folder
    part = folder / f"{wheel.name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(wheel.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        kept = part.replace(folder / wheel.name)
        build.forget_failure()
        return kept
    except OSError as error:
        raise BuildError(cannot_write(folder, error, ADVICE)) from error
    finally:
        part.unlink(missing_ok=True)
