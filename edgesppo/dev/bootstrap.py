"""Owns the first set-up: the virtual environment, and llama.cpp built with only what we use.

Run as `python -m edgesppo.dev.bootstrap VENV [EXTRA ...]` in a checkout, before anything is
installed: standard library only. What it did is remembered in the environment, so that a second
run takes no time; the compiled wheel is kept in the user's cache for the next environment.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgesppo.system.paths import PACKAGE, cache_dir

CHECKOUT = PACKAGE.parent
_PROGRESS = re.compile(rb"^\s*\[(\d+)/(\d+)\]", re.MULTILINE)
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
_TAIL = 25


def main(arguments: list[str]) -> int:
    """Make the environment `arguments[0]` hold edgesppo with the extras that follow."""
    if sys.version_info < (3, 10):  # noqa: UP036 - it runs on whatever python3 is
        _say(f"Python {platform.python_version()} found, 3.10 or newer needed")
        return 1
    venv, extras = Path(arguments[0]).absolute(), arguments[1:]
    stamp = venv / f".edgesppo-{'-'.join(['base', *extras])}"
    wanted = _fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return 0
    try:
        _set_up(venv, extras)
    except subprocess.CalledProcessError as error:
        _say(f"set-up failed: {' '.join(map(str, error.cmd))}")
        return 1
    except OSError as error:
        _say(f"set-up failed: {error.filename}: {error.strerror}; EDGESPPO_HOME names our folder")
        return 1
    except KeyboardInterrupt:
        _say("\nset-up interrupted; the same command goes on with it")
        return 130
    stamp.write_text(wanted)
    return 0


def _set_up(venv: Path, extras: list[str]) -> None:
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not _has_pip(python):
        _say(f"Making the virtual environment {venv.name}")
        _run([sys.executable, "-m", "venv", "--clear", venv])
    version = llama_version()
    wheels = wheel_folder(version)
    if not list(wheels.glob("*.whl")):
        _need_compiler()
        wheels.mkdir(parents=True, exist_ok=True)
        _build_wheel(python, version, wheels)
    _say("Installing edgesppo and its Python packages")
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check"]
    _run([*pip, *wheels.glob("*.whl")])
    target = f"{CHECKOUT}[{','.join(extras)}]" if extras else str(CHECKOUT)
    _run([*pip, "--editable", target])


def _has_pip(python: Path) -> bool:
    """Whether the environment is whole; one that was interrupted while made is not.

    Without its pyvenv.cfg its Python is the system's own, and nothing may be installed there.
    """
    program = "import pip, sys; sys.exit(sys.prefix == sys.base_prefix)"
    command: list[str | Path] = [python, "-c", program]
    return python.exists() and subprocess.run(command, check=False).returncode == 0


def llama_version() -> str:
    """The pinned version of llama-cpp-python, read from pyproject.toml."""
    found = _PIN.search((CHECKOUT / "pyproject.toml").read_text())
    if found is None:
        raise SystemExit("pyproject.toml pins no llama-cpp-python")
    return found[1]


def wheel_folder(version: str) -> Path:
    """Where the wheel built for this very machine is kept: it uses all its processor can."""
    build = hashlib.sha256(f"{_processor()}{_CMAKE}".encode()).hexdigest()[:12]
    return cache_dir() / "wheels" / f"{version}-{platform.machine()}-{build}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    flags = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return flags[0] if flags else platform.processor()


def _need_compiler() -> None:
    names = [os.environ.get("CXX"), "c++", "g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in names if name):
        raise SystemExit(
            "no C++ compiler found; install one (Debian, Ubuntu, Raspberry Pi OS: apt install "
            "g++; macOS: xcode-select --install; Windows: Visual Studio Build Tools)"
        )


def _build_wheel(python: Path, version: str, wheels: Path) -> None:
    _say(f"Compiling llama.cpp (llama-cpp-python {version}) for this machine, once: some minutes")
    with tempfile.TemporaryDirectory() as folder:
        options = Path(folder) / "edgesppo.cmake"
        options.write_text(_CMAKE)
        command: list[str | Path] = [python, "-m", "pip", "wheel", "--verbose", "--no-deps"]
        command += ["--wheel-dir", folder]
        # pip would hand out a wheel that it built before with other options.
        command += ["--no-cache-dir"]
        command += ["-C", "cmake.define.LLAVA_BUILD=OFF"]
        command += ["-C", f"cmake.define.CMAKE_PROJECT_llama_cpp_INCLUDE={options}"]
        command += [f"llama-cpp-python=={version}"]
        _run_visibly(command, Path(folder) / "log")
        for wheel in Path(folder).glob("*.whl"):
            part = wheels / f"{wheel.name}.part"
            part.write_bytes(wheel.read_bytes())
            part.replace(wheels / wheel.name)


def _run_visibly(command: list[str | Path], log: Path) -> None:
    """Run, showing the compiler's own count of steps; show the log's end only on failure."""
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    while process.poll() is None:
        time.sleep(0.5 if sys.stderr.isatty() else 15)
        steps = _PROGRESS.findall(log.read_bytes())
        done = f"step {int(steps[-1][0])} of {int(steps[-1][1])}" if steps else "preparing"
        end = "\r" if sys.stderr.isatty() else "\n"
        seconds = time.monotonic() - started
        print(f"  {done}, {seconds:.0f} s   ", end=end, file=sys.stderr, flush=True)
    if process.returncode:
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(lines[-_TAIL:]), file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command[:4])
    print(f"  compiled in {time.monotonic() - started:.0f} s    ", file=sys.stderr)


def _fingerprint() -> str:
    data = (CHECKOUT / "pyproject.toml").read_bytes() + Path(__file__).read_bytes()
    return hashlib.sha256(data + str(CHECKOUT).encode()).hexdigest()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(command: list[str | Path]) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
