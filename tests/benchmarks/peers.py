"""The programs that we are compared to, built once from llama-cpp-python's source distribution.

    python -m tests.benchmarks.peers

CACHE/peers/llama_cpp_python-X.Y.Z   the sources, of the pinned release
CACHE/peers/X.Y.Z-MACHINE-KEY        llama.cpp and its tools, one folder for each way to compile
CACHE/peers/packages                 what `llama_cpp.server` needs
CACHE/peers/hf                       torch and transformers, for convert_hf_to_gguf.py

There are two builds. `pip` is what `pip install llama-cpp-python` makes here: the system's
compiler, OpenMP, all defaults. `same` is compiled as ours is (edgesppo/native_build), so that a
difference to it is not the compiler's: llama-cpp-python takes the library that is installed, and
the tools are linked statically, since ziglang's C++ library must be there only once. Needs cmake
and a system compiler.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.dev.bootstrap_setup import llama_version
from edgesppo.native_build import builds, compilers
from edgesppo.native_build.pip import Pip
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

PIP, SAME = "pip's build", "same build"
BENCHES = ("llama-bench", "llama-batched-bench")
TOOLS = (*BENCHES, "llama-server", "llama-perplexity", "llama-imatrix", "llama-quantize")
_DEFINES = (
    *("CMAKE_BUILD_TYPE=Release", "LLAMA_OPENSSL=OFF", "LLAMA_CURL=OFF"),
    *("LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF"),
)
# What the extra `server` of llama-cpp-python names beside what our own has.
_SERVER_PACKAGES = (
    *("pydantic-settings", "sse-starlette", "starlette-context<0.4", "PyYAML", "python-dotenv"),
)
_HF_PACKAGES = ("torch", "transformers", "sentencepiece", "protobuf", "numpy")


@dataclass(frozen=True)
class Build:
    """A build of llama.cpp: its name, its compiler, and the folder of its tools."""

    name: str
    compiler: str
    folder: Path
    tools: tuple[str, ...]

    def tool(self, name: str) -> Path:
        """The path of one of its tools."""
        return self.folder / "bin" / name

    @property
    def environment(self) -> dict[str, str]:
        """With these variables llama-cpp-python loads this build, and has its server's packages."""
        packages = {"PYTHONPATH": str(_packages())}
        if self.name == SAME:
            return packages
        return {"LLAMA_CPP_LIB_PATH": str(self.folder / "bin"), **packages}

    @property
    def is_complete(self) -> bool:
        """Whether all tools are there."""
        return all(self.tool(tool).exists() for tool in self.tools)


@functools.cache
def pip_build() -> Build:
    """llama.cpp as pip compiles it here; compiled now if need be."""
    system = compilers.system_compiler(compilers.SYSTEM)
    folder = peers_dir() / builds.Build(llama_version(), system, "").folder.name
    build = Build(PIP, system.identity, folder, TOOLS)
    if not build.is_complete:
        _compile(build, dict(os.environ), ["BUILD_SHARED_LIBS=ON"])
    return build


@functools.cache
def same_build() -> Build:
    """llama.cpp's benchmarks, compiled as ours is; compiled now if need be."""
    ours = builds.possible_builds(llama_version())[0]
    build = Build(SAME, ours.compiler.identity, peers_dir() / ours.folder.name, BENCHES)
    if not build.is_complete:
        scratch = build.folder / "compiler"
        scratch.mkdir(parents=True, exist_ok=True)
        tools = ours.compiler.prepare(Pip(Path(sys.executable), scratch))
        # As edgesppo/native_build/builds.py has it, but with the library that the tools need.
        recipe = build.folder / "edgesppo.cmake"
        recipe.write_text(builds.recipe().replace("set(LLAMA_BUILD_COMMON OFF)\n", ""))
        defines = [*ours.defines, *tools.defines, f"CMAKE_PROJECT_llama.cpp_INCLUDE={recipe}"]
        environment = {**os.environ, **tools.environment}
        _compile(build, environment, ["BUILD_SHARED_LIBS=OFF", "LLAMA_BUILD_SERVER=OFF", *defines])
        shutil.rmtree(scratch)
    return build


def _compile(build: Build, environment: dict[str, str], defines: Sequence[str]) -> None:
    llama_cpp = sources() / "vendor" / "llama.cpp"
    settings = [f"-D{define}" for define in (*_DEFINES, *defines)]
    _call("cmake", "-S", llama_cpp, "-B", build.folder, *settings, environment=environment)
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(len(os.sched_getaffinity(0)))
    words = ("--parallel", jobs, "--target", *build.tools)
    _call("cmake", "--build", build.folder, *words, environment=environment)


def peers_dir() -> Path:
    """The folder of all of this."""
    folder = cache_dir() / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def sources() -> Path:
    """llama-cpp-python's source distribution, unpacked; downloaded now if need be."""
    version, folder = llama_version(), peers_dir()
    unpacked = folder / f"llama_cpp_python-{version}"
    if not unpacked.exists():
        pinned = f"llama-cpp-python=={version}"
        wanted = ("--no-deps", "--no-binary", ":all:", "-d", folder, pinned)
        _call(sys.executable, "-m", "pip", "download", "-q", *wanted)
        (archive,) = folder.glob(f"llama_cpp_python-{version}.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    return unpacked


@functools.cache
def hugging_face_python() -> Path:
    """An interpreter with torch and transformers, which convert_hf_to_gguf.py needs."""
    folder = peers_dir() / "hf"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        _call(sys.executable, "-m", "venv", folder)
        _call(python, "-m", "pip", "install", "-q", *_HF_PACKAGES)
        done.touch()
    return python


@functools.cache
def _packages() -> Path:
    folder = peers_dir() / "packages"
    if not folder.exists():
        made = folder.with_name("packages.part")
        words = ("install", "-q", "--no-deps", "--target", made, *_SERVER_PACKAGES)
        _call(sys.executable, "-m", "pip", *words)
        made.rename(folder)
    return folder


def _call(*words: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run a step of building. Raises SystemExit with the end of its output if it fails."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def main() -> None:
    """Build and install everything."""
    for build in (pip_build(), same_build()):
        print(f"{build.name}: {build.compiler}, {build.folder}", flush=True)
    print(f"packages of llama_cpp.server: {_packages()}")
    print(f"torch and transformers: {hugging_face_python()}")


if __name__ == "__main__":
    main()
