"""Makes a virtual environment hold edgesppo: the environment, llama.cpp's wheel, the packages.

What is needed to go on after any end is kept in the environment's own folder:

    VENV/.edgesppo-base-test      all is installed, with the extra `test`, of this checkout
    VENV/.edgesppo-unfinished     it is being changed; whoever finds it later makes it anew
    VENV/.edgesppo-lock           held by the one set-up that is at work
    VENV/.edgesppo-scratch        what pip and the compiler write meanwhile
    VENV/.edgesppo-packages       links to the packages, for type checkers

Runs before anything is installed: standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo import native_build
from edgesppo.dev.bootstrap_links import CHECKOUT, link_packages
from edgesppo.errors import BuildError, EdgesppoError
from edgesppo.native_build import workplace
from edgesppo.native_build.builds import possible_builds
from edgesppo.native_build.child import heeding_signals, run, say
from edgesppo.native_build.failure import CutShort, Failed, Interrupted
from edgesppo.native_build.pip import OLDEST_PIP, Pip, clean_environment, is_too_old
from edgesppo.native_build.wheel import ADVICE, compile_wheel, kept_wheel, loadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LOCK, _UNFINISHED, _SCRATCH = ".edgesppo-lock", ".edgesppo-unfinished", ".edgesppo-scratch"
# Without pyvenv.cfg an environment's Python is the system's own: nothing may be installed there.
_PROBE = (
    "import pip, sys; assert sys.prefix != sys.base_prefix; "
    "print('%d.%d' % sys.version_info[:2], pip.__version__)"
)
_OWN_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_OPTIONAL = "fast"  # an extra that is left out where there is no wheel of what it brings
_WHEELS_ONLY = ("numba", "llvmlite")
_VENV_ADVICE = "VENV=FOLDER makes the environment elsewhere"
_PIN = re.compile(r'"llama-cpp-python==([0-9.]+)"')


def main(arguments: Sequence[str]) -> int:
    """Make the environment `arguments[0]` hold edgesppo with the extras that follow."""
    if not arguments or arguments[0].startswith("-"):  # --help would become a folder
        say("usage: bootstrap.py VENV [EXTRA ...]")
        return 2
    venv, extras = Path(arguments[0]).absolute(), list(arguments[1:])
    try:
        with heeding_signals("set-up"):
            _SetUp(venv, extras).run()
    except Interrupted:
        return 130
    except Failed as error:
        _explain(error, venv)
        return 1
    except EdgesppoError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"set-up failed: {error.filename or venv}: {error.strerror or error}")
        return 1
    return 0


def _explain(error: Failed, venv: Path) -> None:
    """Say why a child failed: what it printed last, and a line that sums it up."""
    if tail := error.tail():
        say(tail)
    say(f"set-up failed {error}: {error.summary(venv)}")


class _SetUp:
    """One set-up of one environment."""

    def __init__(self, venv: Path, extras: Sequence[str]) -> None:
        self._venv, self._extras = venv, extras
        self._python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._done = venv / f".edgesppo-{'-'.join(['base', *extras])}"
        self._unfinished = venv / _UNFINISHED
        self._scratch = venv / _SCRATCH
        self._builds = possible_builds(llama_version())
        self._wanted = _fingerprint(self._builds[0].folder.name)

    def run(self) -> None:
        """Do what is not yet done. Raises BuildError, Interrupted, OSError."""
        if self._is_done():
            return
        self._check_needs()
        other = "another set-up of this checkout"
        with workplace.alone(self._venv / _LOCK, self._scratch, other):
            if self._is_done():
                return
            pip_version = self._usable_environment()
            pip = Pip(self._python, self._scratch)
            if is_too_old(pip_version):
                self._renew(pip, pip_version)
            kept = loadable(pip, self._builds, kept_wheel(self._builds))
            wheel = kept or compile_wheel(pip, self._builds)
            say("Installing edgesppo and its Python packages")
            with self._installing():
                self._install(pip, wheel)
                link_packages(self._venv)
            self._done.write_text(self._wanted)
        activate = str(self._python.with_name("activate"))
        if os.name != "nt":
            activate = f"source {shlex.quote(os.path.relpath(activate))}"
        say(f"To have edgesppo on your path: {activate}")

    def _is_done(self) -> bool:
        if self._unfinished.exists() or not self._python.exists():
            return False
        return self._done.exists() and self._done.read_text() == self._wanted

    def _check_needs(self) -> None:
        """Raise BuildError for all that is missing, before anything is done."""
        faults = [] if self._python.exists() else [_venv_fault()]
        if kept_wheel(self._builds) is None:
            faults += [self._builds[0].fault]
            faults += [workplace.write_fault(self._builds[0].folder, ADVICE)]
        if not any(faults):
            faults = [workplace.write_fault(self._venv, _VENV_ADVICE)]
        if found := list(filter(None, faults)):
            raise BuildError("\n".join(found))

    @contextmanager
    def _installing(self) -> Iterator[None]:
        """Marked as unfinished, and left so by whatever cuts an installation short."""
        self._unfinished.touch()
        try:
            yield
        except CutShort as error:
            if not error.changed_packages():
                self._unfinished.unlink()
            raise
        self._unfinished.unlink()

    def _usable_environment(self) -> str:
        """Make the environment anew unless it works and is this Python's; its pip's version."""
        python, pip = ("", "") if self._unfinished.exists() else self._probe()
        if python == _OWN_PYTHON:
            return pip
        self._make_environment(python)
        python, pip = self._probe()
        if python != _OWN_PYTHON:
            raise BuildError(f"{self._python} does not run, though it was just made")
        return pip

    def _probe(self) -> tuple[str, str]:
        """The versions of the environment's Python and pip; empty where it does not work."""
        try:
            command = [str(self._python), "-I", "-c", _PROBE]
            *_, line = run(command, clean_environment(self._scratch), "looking at its Python")
            python, pip = line.split()
        except (Failed, OSError, ValueError):
            return "", ""
        return python, pip

    def _make_environment(self, python: str) -> None:
        """Make it, in the place of what is left of another Python's or of a broken one."""
        if fault := _venv_fault():
            raise BuildError(fault)
        old = [path for path in self._venv.iterdir() if path.name not in (_LOCK, _SCRATCH)]
        # Neither `bin`, which ~/.local has, too, nor a lock that a kill left anywhere shows it.
        marks = ("pyvenv.cfg", ".edgesppo-base", _UNFINISHED)
        is_environment = any(path.name.startswith(marks) for path in old)
        if old and not is_environment:
            raise BuildError(f"{self._venv} holds other files; {_VENV_ADVICE}")
        why = f" for Python {_OWN_PYTHON}, it was made for {python}" if python else ""
        say(f"Making the virtual environment {self._venv.name}{' anew' if old else ''}{why}")
        base: str = getattr(sys, "_base_executable", None) or sys.executable
        self._unfinished.touch()
        for path in old:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self._unfinished:
                path.unlink(missing_ok=True)
        # In two steps: venv would keep to itself why pip could not be installed.
        environment, doing = clean_environment(self._scratch), "making the virtual environment"
        run([base, "-m", "venv", "--without-pip", self._venv], environment, doing)
        run([self._python, "-I", "-m", "ensurepip", "--default-pip"], environment, doing)
        self._unfinished.unlink()

    def _renew(self, pip: Pip, version: str) -> None:
        """Bring pip up to date."""
        doing = f"bringing pip {version} up to date ({OLDEST_PIP} or newer is needed)"
        with self._installing():
            pip.run("install", "--upgrade", f"pip>={OLDEST_PIP}", doing=doing)

    def _install(self, pip: Pip, wheel: Path) -> None:
        doing = "installing the packages"
        # By force: a wheel of the same version that was compiled otherwise is another one.
        pip.run("install", "--no-deps", "--force-reinstall", wheel, doing=doing)
        command = ["install", "--only-binary", ",".join(_WHEELS_ONLY), "--editable"]
        try:
            pip.run(*command, _target(self._extras), doing=doing, done="installed")
        except Failed as error:
            if _OPTIONAL not in self._extras or not error.has_no_wheel_of(_WHEELS_ONLY):
                raise
            say("numba has no wheel for this Python and machine: conversions take longer without")
            extras = [extra for extra in self._extras if extra != _OPTIONAL]
            pip.run(*command, _target(extras), doing=doing, done="installed")


def _target(extras: Sequence[str]) -> str:
    return f"{CHECKOUT}[{','.join(extras)}]" if extras else str(CHECKOUT)


def _venv_fault() -> str | None:
    """What to install when this Python makes no virtual environments; Debian's does not alone."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return None
    return (
        f"{sys.executable} has no ensurepip, which makes virtual environments; install it "
        f"(Debian, Ubuntu, Raspberry Pi OS: apt install python{_OWN_PYTHON}-venv)"
    )


def llama_version() -> str:
    """The pinned version of llama-cpp-python, read from pyproject.toml."""
    found = _PIN.search((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    if found is None:
        raise BuildError("pyproject.toml pins no llama-cpp-python")
    return found[1]


def _fingerprint(wheel: str) -> str:
    """Of all that an environment depends on: it is set up again when that changes."""
    build = Path(native_build.__file__).parent
    ours = [*Path(__file__).parent.glob("bootstrap*.py"), *build.glob("*.py")]
    files = [CHECKOUT / "pyproject.toml", *sorted(ours)]
    data = b"".join(path.read_bytes() for path in files)
    data += os.fsencode(CHECKOUT) + f"{wheel}{_OWN_PYTHON}".encode()
    return hashlib.sha256(data).hexdigest()
