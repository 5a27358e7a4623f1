"""Compile llama.cpp anew into the environment that runs this: `edgesppo build`.

HOME/wheels/.lock       held by the one build that is at work
HOME/wheels/.scratch    what pip and the compiler write meanwhile
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from edgesppo.errors import BuildError
from edgesppo.native_build import workplace
from edgesppo.native_build.builds import Build, possible_builds, wheels_dir
from edgesppo.native_build.child import heeding_signals, run, say
from edgesppo.native_build.failure import Failed
from edgesppo.native_build.pip import OLDEST_PIP, Pip, clean_environment, is_too_old
from edgesppo.native_build.wheel import ADVICE, compile_wheel, kept_wheel, loadable

LIBRARY = "llama-cpp-python"
BUNDLE_ADVICE = "a bundle keeps the llama.cpp it was made with; make it anew: make bundle"


@dataclass(frozen=True)
class Installed:
    """What `build_and_install` did, or would do."""

    version: str  # of llama-cpp-python
    compiler: str
    backend: str
    compiled: bool  # now; else it was compiled before
    seconds: float


def pinned_version() -> str | None:
    """The version of the library that this package requires; None if unknown."""
    try:
        needs = importlib.metadata.requires("edgesppo") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (re.match(rf"{LIBRARY}==([\w.]+)", need) for need in needs)
    return next((match[1] for match in found if match), None)


def is_bundle() -> bool:
    """Whether this program is a bundle, which has no environment to install anything into."""
    return bool(getattr(sys, "frozen", False))


def _environment_fault() -> str:
    """Why pip could install nothing into the environment of this Python; empty if it can."""
    if is_bundle():
        return BUNDLE_ADVICE
    marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"  # PEP 668
    if sys.prefix != sys.base_prefix or not marker.exists():
        return ""
    return (
        f"{sys.executable} is the system's or another program's, and pip installs nothing into it"
        " (PEP 668); install edgesppo in a virtual environment: python3 -m venv FOLDER, and in the"
        " clone FOLDER/bin/pip install ."
    )


def plan(*, force: bool) -> tuple[list[Build], Path | None]:
    """The ways to compile here, and the wheel that was compiled before, if it is to be used.

    Raises BuildError if nothing can be compiled, or nothing installed here.
    """
    if fault := _environment_fault():
        raise BuildError(fault)
    version = pinned_version()
    if version is None:
        raise BuildError(
            "edgesppo is not installed in this environment: in the clone, pip install ."
        )
    builds = possible_builds(version)
    # A way that failed is tried again: that is what people run this for.
    kept = None if force else kept_wheel(builds[:1])
    if kept is None and builds[0].fault:
        raise BuildError(builds[0].fault)
    return builds, kept


def build_and_install(*, force: bool) -> Installed:
    """Compile llama.cpp, unless it was compiled the same way before, and install it.

    With `force` it is compiled in any case. Raises BuildError, Failed, Interrupted, OSError.
    """
    started = time.monotonic()
    builds, _ = plan(force=force)
    top = wheels_dir()
    if fault := workplace.write_fault(top, ADVICE):
        raise BuildError(fault)
    with (
        heeding_signals("build"),
        workplace.alone(top / ".lock", top / ".scratch", "another build"),
    ):
        pip = _own_pip(top / ".scratch")
        kept = loadable(pip, builds, plan(force=force)[1])
        wheel = kept or compile_wheel(pip, builds)
        say(f"Installing it into {sys.prefix}")
        pip.run("install", "--no-deps", "--force-reinstall", wheel, doing="installing it")
    build = next(build for build in builds if build.folder == wheel.parent)
    return Installed(
        version=build.version,
        compiler=build.compiler.identity,
        backend=build.backend or "default",
        compiled=kept is None,
        seconds=time.monotonic() - started,
    )


def _own_pip(scratch: Path) -> Pip:
    """The pip of this environment. Raises BuildError if it has none that can be used."""
    python = Path(sys.executable)
    command = [str(python), "-c", "import pip; print(pip.__version__)"]
    try:
        version = run(command, clean_environment(scratch), "looking at its pip")[-1].split()[-1]
    except (Failed, IndexError):
        raise BuildError(
            f"{python} has no pip, which builds and installs the library; to get it:"
            f" {python} -m ensurepip"
        ) from None
    if is_too_old(version):
        raise BuildError(
            f"pip {version} is too old, {OLDEST_PIP} or newer is needed:"
            f" {python} -m pip install --upgrade pip"
        )
    return Pip(python, scratch)
