"""Compare the processor features that llama.cpp was compiled for with those of this machine.

The library is loaded in a separate process: one that was compiled for another processor kills the
process that loads it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from edgesppo.native_build.compilers import COMPILED_BY
from edgesppo.system import hardware
from edgesppo.system.paths import PACKAGE
from edgesppo.system.sanitize import one_line

# The operating system's name of a feature -> llama.cpp's. These make computing faster.
_FEATURES = {
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
# Further features that a build may require; without them the processor cannot run it.
_REQUIRED = {
    "pni": "SSE3",
    "ssse3": "SSSE3",
    "bmi2": "BMI2",
    "avx_vnni": "AVX_VNNI",
    "avx512vbmi": "AVX512_VBMI",
    "asimdhp": "FP16_VA",
    "sme": "SME",
}
LIBRARY = "edgesppo.llama.library"
_PROGRAM = f"""\
import json
from {LIBRARY} import LIBRARY_VERSION, can_offload, system_info
print(json.dumps([LIBRARY_VERSION, system_info(), can_offload()]))
"""
# What a compiler writes of itself into the section .comment of a library (ELF).
_COMPILERS = {
    "Clang": re.compile(rb"clang version (\d[\d.]*)"),
    "GCC": re.compile(rb"GCC: \([^)\0]*\) (\d[\d.]*)"),
}
# Exit statuses of an illegal instruction: SIGILL; through a shell; on Windows.
ILLEGAL = (-4, 132, 3221225501)
_TIMEOUT_S = 120.0


def query() -> tuple[int, str]:
    """Load the library in a separate process and ask for its system info.

    Returns the exit status and the system info; if the status is not 0, the last line that the
    process wrote to standard error instead.
    """
    status, reply = _ask()
    return (status, json.loads(reply)[1]) if status == 0 else (status, one_line(reply))


@functools.cache
def _ask() -> tuple[int, str]:
    """The exit status of a process that loads the library, and the last line that it wrote."""
    return run_program(_PROGRAM)


def run_program(
    program: str, *arguments: str, timeout: float | None = _TIMEOUT_S
) -> tuple[int, str]:
    """The exit status of a program in a separate process, and the last line that it wrote.

    That is of standard output if the status is 0, else of standard error. `timeout` is in seconds.
    """
    command = [sys.executable, "-c", program, *arguments]
    folders = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout,
        errors="replace",
    )
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


@functools.cache
def library() -> tuple[str, str, bool]:
    """The library's version, its system info, and whether it can offload to a GPU here.

    The library is asked in this process if it is loaded, else in a separate one; ("", "", False)
    if that cannot load it.
    """
    if LIBRARY in sys.modules:
        from edgesppo.llama.library import LIBRARY_VERSION, can_offload, system_info

        return LIBRARY_VERSION, system_info(), can_offload()
    status, reply = _ask()
    try:
        version, info, offloads = json.loads(reply)
    except ValueError:
        return "", "", False
    return (version, info, offloads) if status == 0 else ("", "", False)


@functools.cache
def compiler() -> tuple[str, str]:
    """The name and version of what compiled the library's kernels; empty if it does not tell.

    The library is read, not loaded.
    """
    try:
        found = importlib.util.find_spec("llama_cpp")
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None:
        return "", ""
    return compiler_of(Path(found.origin).parent / "lib" / "libggml-cpu.so")


def compiler_of(library: Path) -> tuple[str, str]:
    """The name and version of what compiled a library; empty if it does not tell."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        said = library.with_name(COMPILED_BY).read_text(encoding="utf-8")
        name, _, version = one_line(said)[:80].partition(" ")
        return name, version
    try:
        data = library.read_bytes()
    except OSError:
        return "", ""
    for name, pattern in _COMPILERS.items():  # Clang's objects are linked to some of GCC's
        if match := pattern.search(data):
            return name, match[1].decode()
    return "", ""


def used_features(info: str) -> list[str]:
    """The features that matter for speed and that the build uses."""
    return sorted(_built_for(info) & set(_FEATURES.values()))


def missing_features(info: str) -> list[str]:
    """The features that the build needs and the processor lacks.

    Empty if the system does not tell the processor's features.
    """
    built, present = _built_for(info), hardware.features()
    known = {**_FEATURES, **_REQUIRED}
    return [
        theirs
        for ours, theirs in known.items()
        if present and theirs in built and ours not in present
    ]


def unused_features(info: str) -> list[str]:
    """The features that matter for speed, that the processor has and the build does not use."""
    built, present = _built_for(info), hardware.features()
    return [theirs for ours, theirs in _FEATURES.items() if ours in present and theirs not in built]


def _built_for(info: str) -> set[str]:
    """The features that are switched on in llama.cpp's system info ("AVX2 = 1 | FMA = 0 ...")."""
    return {name for name, value in re.findall(r"(\w+) = (\d+)", info) if value != "0"}
