"""Checks of `edgesppo doctor` on the llama.cpp that is installed: its version and its build.

The library is loaded in a separate process, which a wrong build would kill.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from edgesppo.diagnostics.finding import FAIL, OK, WARN, Finding
from edgesppo.llama import build_info
from edgesppo.native_build.compilers import ziglang_supports_machine
from edgesppo.native_build.install import BUNDLE_ADVICE, LIBRARY, is_bundle, pinned_version

if TYPE_CHECKING:
    from collections.abc import Iterator

# llama.cpp's name of a GPU's interface -> how `edgesppo build` is told; a Mac's needs no word.
_DEVICES = {"CUDA": " --backend cuda", "Metal": "", "MTL": "", "Vulkan": " --backend vulkan"}
# The same for pip, where `edgesppo build` knows no such kernels.
_DEFINES = {"ROCm": "GGML_HIP=ON", "SYCL": "GGML_SYCL=ON"}
# The newest GCC that was measured: prompts take a quarter to a third longer than with Clang.
_OLD_GCC = 12


def build() -> Iterator[Finding]:
    """Check the installed llama-cpp-python: its version, what it was compiled for and by what."""
    wanted = pinned_version()
    install = f"pip install {LIBRARY}" + (f"=={wanted}" if wanted else "")
    try:
        version = importlib.metadata.version(LIBRARY)
    except importlib.metadata.PackageNotFoundError:
        yield Finding("library", FAIL, f"{LIBRARY} is not installed", install)
        return
    wrong = wanted not in (None, version)
    state, advice = (FAIL, install) if wrong else (OK, None)
    yield Finding("library", state, f"{LIBRARY} {version}", advice)
    code, info = build_info.query()
    if code:
        illegal = code in build_info.ILLEGAL
        why = "by an instruction that this processor lacks" if illegal else f"with status {code}"
        text = f"the library ended its process {why}{': ' if info else ''}{info}"
        advice = _advice("") if illegal else f"{install} --force-reinstall"
        yield Finding("features", FAIL, text, advice)
        return
    yield _features(info)
    yield from _compiler(info)
    if "AMX_INT8 = 1" in info:
        advice = f"{_advice(info)} (which leaves them out)"
        text = "the library has AMX kernels, which crash; weights are not repacked to avoid them"
        yield Finding("amx", WARN, text, advice)
    devices = [name for name in (*_DEVICES, *_DEFINES) if name in info]
    yield Finding("gpu", OK, ", ".join(devices) or "none: everything runs on the processor")


def _advice(info: str) -> str:
    """How to compile the library anew, with the kernels for a GPU that it has."""
    if is_bundle():
        return BUNDLE_ADVICE
    if defines := [define for name, define in _DEFINES.items() if name in info]:
        package = f"{LIBRARY} {LIBRARY}=={pinned_version() or importlib.metadata.version(LIBRARY)}"
        settings = " ".join(f"-C cmake.define.{define}" for define in ("GGML_OPENMP=OFF", *defines))
        options = "--force-reinstall --no-deps --no-cache-dir --no-binary"
        return f"compile it anew: pip install {options} {package} {settings}"
    options = next((option for name, option in _DEVICES.items() if option and name in info), "")
    return f"compile it anew: edgesppo build{options}"


def _compiler(info: str) -> Iterator[Finding]:
    """Say what compiled the library, and warn of what makes it slow."""
    name, version = build_info.compiler()
    by = f"compiled by {name} {version}" if name else "it does not tell what compiled it"
    is_old = name == "GCC" and int(version.split(".")[0]) <= _OLD_GCC and ziglang_supports_machine()
    # Not where a GPU computes.
    is_old = is_old and not any(device in info for device in (*_DEVICES, *_DEFINES))
    if is_old:
        by += ", whose kernels take a quarter to a third longer for prompts than Clang's"
    yield Finding("compiler", WARN if is_old else OK, by, _advice(info) if is_old else None)
    if "OPENMP = 1" in info:
        text = (
            "compiled with OpenMP: answers are slow beside other busy programs, and a process that"
            " has answered cannot fork"
        )
        yield Finding("openmp", WARN, text, _advice(info))


def _features(info: str) -> Finding:
    """Compare the features that the library was compiled for with the processor's."""
    if beyond := build_info.missing_features(info):
        text = f"uses {', '.join(beyond)}, which this processor lacks: it would crash"
        return Finding("features", FAIL, text, _advice(info))
    text = f"uses {', '.join(build_info.used_features(info)) or 'no known features'}"
    if lacking := build_info.unused_features(info):
        text += f"; not {', '.join(lacking)}, which this processor has"
    return Finding("features", WARN if lacking else OK, text, _advice(info) if lacking else None)
