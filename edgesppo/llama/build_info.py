"""Owns what llama.cpp was compiled for, against what this processor has.

The library is asked in a process of its own: what was compiled for another processor ends it.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys

from edgesppo.system import hardware
from edgesppo.system.paths import PACKAGE
from edgesppo.system.sanitize import one_line

# What a processor calls a feature -> what llama.cpp does.
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
# The same, where only their lack matters: what was compiled for them ends the process.
_MORE = {
    "pni": "SSE3",
    "ssse3": "SSSE3",
    "bmi2": "BMI2",
    "avx_vnni": "AVX_VNNI",
    "avx512vbmi": "AVX512_VBMI",
    "asimdhp": "FP16_VA",
    "sme": "SME",
}
_ASK = "from edgesppo.llama.library import system_info; print(system_info())"
ILLEGAL = (-4, 132, 3221225501)  # SIGILL; through a shell; on Windows
_ASKED_S = 120.0


@functools.cache
def info() -> tuple[int, str]:
    """The status of a process that asks the library what it was compiled for, and what that says.

    Where the status is not 0, the last line of its complaint.
    """
    words = [sys.executable, "-c", _ASK]
    places = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment, timeout=_ASKED_S, errors="replace"
    )
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode, one_line(said[-1]) if said else ""


def used(info: str) -> list[str]:
    """The features that count for speed and that it was compiled for."""
    return sorted(_built(info) & set(_FEATURES.values()))


def beyond(info: str) -> list[str]:
    """What it was compiled for and the processor lacks; nothing where the system does not tell."""
    built, has = _built(info), hardware.features()
    known = {**_FEATURES, **_MORE}
    return [theirs for ours, theirs in known.items() if has and theirs in built and ours not in has]


def lacking(info: str) -> list[str]:
    """What the processor has, counts for speed, and was left out."""
    built, has = _built(info), hardware.features()
    return [theirs for ours, theirs in _FEATURES.items() if ours in has and theirs not in built]


def _built(info: str) -> set[str]:
    return {name for name, value in re.findall(r"(\w+) = (\d+)", info) if value != "0"}
