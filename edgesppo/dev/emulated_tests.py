"""Run the tests on an AArch64 Python under emulation, with the library that is compiled for it.

    python -m edgesppo.dev.emulated_tests FOLDER [PYTEST_ARGUMENT ...]

For Debian and its like, with the package qemu-user-static. FOLDER is kept for the next time:

    FOLDER/root          Debian's AArch64 Python and the libraries that it loads; not installed here
    FOLDER/bin/python    a script that runs it; tests that start another Python start this script
    FOLDER/lib           the packages that the tests need, and llama.cpp's wheel for AArch64

An emulated core is some twenty times slower, so run the tests room by room, as tests/gguf.
`edgesppo help limits` says what passed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgesppo.dev.bootstrap_links import CHECKOUT
from edgesppo.dev.cross_build import TARGETS, cross_compile
from edgesppo.errors import EdgesppoError
from edgesppo.native_build.child import heeding_signals
from edgesppo.native_build.failure import Failed, Interrupted

_QEMU = "qemu-aarch64-static"
_PYTHON = ("python3", "libgcc-s1", "libstdc++6", "tzdata")  # Debian's packages
# Newer systems take the wheels that were made for older ones; pip wants each named.
_GLIBC = ("2_17", "2_24", "2_26", "2_27", "2_28", "2_31", "2_34", "2_35", "2_36")
_PLATFORMS = (*(f"manylinux_{version}_aarch64" for version in _GLIBC), "linux_aarch64")
_EXTRAS = ("test", "fast", "server")
_OTHERWISE = ("llama-cpp-python", "edgesppo[")  # what is compiled, and the checkout's own extras


def main(arguments: list[str]) -> int:
    """Make in FOLDER what is not there yet, and run the tests; their exit code."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: emulated_tests FOLDER [PYTEST_ARGUMENT ...]", file=sys.stderr)
        return 2
    folder = Path(arguments[0]).absolute()
    try:
        with heeding_signals("set-up"):
            wheel = cross_compile(TARGETS["aarch64"])
        _set_up(folder, wheel)
    except Interrupted:
        return 130
    except (Failed, EdgesppoError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    # No byte code beside the sources: another Python of this version would write other code there.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "byte-code")}
    # A test may take as long as it wants, and there is memory for one process.
    options = ["-n0", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0"]
    command = [str(folder / "bin" / "python"), "-m", "pytest", *options, *arguments[1:]]
    return subprocess.run(command, cwd=CHECKOUT, env=environment).returncode


def _set_up(folder: Path, wheel: Path) -> None:
    done = folder / f"{wheel.parent.name}.done"
    if done.exists():
        return
    root = folder / "root"
    if not root.exists():
        _unpack_python(folder, root)
    (real,) = (p for p in (root / "usr" / "bin").glob("python3.*") if p.name[8:].isdecimal())
    _write_launcher(folder, root, real)
    packages = folder / "lib" / real.name / "site-packages"
    # Only what is of this very machine is compiled; all else has wheels.
    version = [w for p in _PLATFORMS for w in ("--platform", p)]
    version += ["--python-version", real.name.removeprefix("python"), "--only-binary", ":all:"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), *version]
    subprocess.run([*pip, "--upgrade", str(wheel), *_requirements()], check=True)
    for name, source in (("edgesppo", "edgesppo"), ("edgesppo_convert", "convert")):
        if not (packages / name).is_symlink():
            (packages / name).symlink_to(CHECKOUT / source)
    done.touch()


def _unpack_python(folder: Path, root: Path) -> None:
    """Fetch Debian's packages by apt, with lists of its own, and unpack them."""
    apt = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    settings = {
        "Dir::State": apt,
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run([*command, "update"], check=True)
    subprocess.run([*command, "install", "--yes", "--download-only", *_PYTHON], check=True)
    part = folder / "root.part"
    for file in sorted((apt / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", file, part], check=True)
    part.replace(root)


def _write_launcher(folder: Path, root: Path, real: Path) -> None:
    """A script for which Python takes itself: a kernel runs it, but no AArch64 program."""
    launcher = folder / "bin" / "python"
    launcher.parent.mkdir(exist_ok=True)
    words = (shlex.quote(str(word)) for word in (root, real))
    launcher.write_text('#!/bin/sh\nexec {} -L {} -0 "$0" {} "$@"\n'.format(_QEMU, *words))
    launcher.chmod(0o755)
    (folder / "pyvenv.cfg").write_text(f"home = {real.parent}\n")


def _requirements() -> list[str]:
    """What edgesppo and its tests need, but for llama-cpp-python, which is compiled."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][e] for e in _EXTRAS)]
    return [line for lines in lists for line in lines if not line.startswith(_OTHERWISE)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
