"""A Python that makes environments of itself, and whose pip does as it is told: nothing is real.

Every call is written down with the settings that reached it. A rule holds for the first call whose
arguments contain its word: what it prints, its exit code, and whether it waits until `go_on`, with
a child in another group of processes, which it ends as ninja ends its compilers: when it is told.
It starts often, so it imports next to nothing: literals stand in place of JSON.
"""

from __future__ import annotations

import ast
import shutil
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesppo.dev import bootstrap_setup
from edgesppo.native_build import builds

_PYTHON = """\
#!{python} -IS
import os, sys
def wait():
    import signal, subprocess, time
    sleeper = [{python!r}, "-IS", "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(sleeper, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: (child.kill(), sys.exit(1)))
    with open(root + "/pids", "w") as file:
        file.write(str(os.getpid()) + " " + str(child.pid) + chr(10))
    while not os.path.exists(root + "/go"):
        time.sleep(0.02)
    child.kill()
def copy(source, target):
    with open(source, "rb") as one, open(target, "wb") as other:
        other.write(one.read())
    os.chmod(target, 0o755)
root, args = {root!r}, sys.argv[1:]
if args[:2] == ["-m", "edgesppo.dev.foreground"]:
    os.execv(args[2], args[2:])
line = " ".join(args)
told = ("PIP_", "PYTHON", "TMPDIR", "CC", "CXX", "ZIG_")
env = {{k: v for k, v in os.environ.items() if k.startswith(told)}}
with open(root + "/calls", "a") as file:
    file.write(repr((line, env)) + chr(10))
with open(root + "/told") as file:
    told = eval(file.read())
if "venv" in args:
    os.makedirs(args[-1] + "/bin")
    os.makedirs(args[-1] + "/lib/python%d.%d/site-packages" % sys.version_info[:2])
    open(args[-1] + "/pyvenv.cfg", "w").close()
    copy(__file__, args[-1] + "/bin/python")
    with open(args[-1] + "/bin/edgesppo", "w") as file:
        file.write("#!/bin/sh" + chr(10) + "echo a chat")
    os.chmod(args[-1] + "/bin/edgesppo", 0o755)
elif "-c" in args:
    print(told["python"], told["pip"])
elif "--target" in args:
    os.makedirs(args[args.index("--target") + 1] + "/ziglang")
elif "wheel" in args:
    folder = args[args.index("--wheel-dir") + 1]
    os.makedirs(folder)
    copy(root + "/made.whl", folder + "/llama_cpp_python-0-py3-none-any.whl")
for word, rule in told["rules"].items():
    if word in line:
        print(rule.get("prints", ""), flush=True)
        if rule.get("waits"):
            wait()
        sys.exit(rule.get("exit", 0))
"""


@dataclass(frozen=True)
class FakePython:
    """The folder it keeps its books in, and the environment that is set up with it."""

    root: Path
    venv: Path

    def __post_init__(self) -> None:
        self.path.write_text(_PYTHON.format(python=sys.executable, root=str(self.root)))
        self.path.chmod(0o755)
        self.behave()
        with zipfile.ZipFile(self.root / "made.whl", "w") as archive:
            archive.writestr("llama_cpp/__init__.py", "")

    @property
    def path(self) -> Path:
        return self.root / "python"

    def behave(
        self,
        rules: dict[str, dict[str, Any]] | None = None,
        *,
        python: str = bootstrap_setup._OWN_PYTHON,
        pip: str = "25.0",
    ) -> None:
        """What it does from now on, and the versions that an environment's probe finds."""
        text = repr({"python": python, "pip": pip, "rules": rules or {}})
        (self.root / "told").write_text(text)

    def calls(self) -> list[tuple[str, dict[str, str]]]:
        """What it was called with since this was last asked."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [*map(ast.literal_eval, lines)]

    def installed(self) -> list[str]:
        """The arguments of what changed the environment, in order."""
        words = ("-m venv", "ensurepip", "pip install")
        return [line for line, _ in self.calls() if any(word in line for word in words)]

    def waiting(self) -> list[int]:
        """The processes of the call that waits, once it is there."""
        path = self.root / "pids"
        while not path.exists() or not path.read_text().endswith("\n"):
            time.sleep(0.02)
        pids = [int(word) for word in path.read_text().split()]
        path.unlink()
        return pids

    def go_on(self) -> None:
        """Have the call that waits go on."""
        (self.root / "go").touch()

    def keep_a_wheel(self, number: int = 0) -> Path:
        """As if llama.cpp had been compiled before, in the first of the ways there are."""
        folder = builds.possible_builds(bootstrap_setup.llama_version())[number].folder
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(self.root / "made.whl", folder / "llama_cpp_python-0.whl"))


def set_up(fake: FakePython, *extras: str) -> int:
    """Run the set-up in this process, with the fake's environment; its exit code."""
    return bootstrap_setup.main([str(fake.venv), *extras])
