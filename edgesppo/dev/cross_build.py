"""Compile llama.cpp's wheel for another kind of machine, by the compiler of the package ziglang.

    python -m edgesppo.dev.cross_build TARGET [TARGET ...]     (TARGET: see TARGETS)

Prints where each wheel is kept; `pip install` takes it on such a machine. A wheel that was compiled
before is kept. On the machine itself a set-up compiles for its very processor, which needs no
target.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgesppo.dev.bootstrap_setup import llama_version
from edgesppo.errors import EdgesppoError
from edgesppo.native_build import workplace
from edgesppo.native_build.builds import Build, wheels_dir
from edgesppo.native_build.child import heeding_signals
from edgesppo.native_build.failure import Failed, Interrupted
from edgesppo.native_build.pip import Pip
from edgesppo.native_build.wheel import compile_wheel, kept_wheel
from edgesppo.native_build.ziglang import Target, Ziglang

# A Raspberry Pi 5 and all newer ones have dotprod; recent servers and laptops have i8mm, too.
TARGETS = {
    "aarch64": Target("aarch64-linux-gnu.2.31", "cortex_a76", "Linux", "aarch64"),
    "aarch64-i8mm": Target("aarch64-linux-gnu.2.31", "cortex_a76+i8mm", "Linux", "aarch64"),
    "windows": Target("x86_64-windows-gnu", "x86_64_v3", "Windows", "AMD64"),
}


def main(arguments: list[str]) -> int:
    """Compile for each target that is named."""
    unknown = [name for name in arguments if name not in TARGETS]
    if unknown or not arguments:
        named = f"there is no target {unknown[0]!r}" if unknown else "no target is named"
        print(f"{named}; expected {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    try:
        with heeding_signals("cross-build"):
            for name in arguments:
                print(f"{name}: {cross_compile(TARGETS[name])}", flush=True)
    except Interrupted:
        return 130
    except Failed as error:
        print(f"{error.tail()}\ncross-build failed {error}", file=sys.stderr)
        return 1
    except (EdgesppoError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def cross_compile(target: Target) -> Path:
    """The wheel for a target. Raises BuildError, Failed, Interrupted, OSError."""
    builds = [Build(llama_version(), Ziglang(target), "cpu")]
    if kept := kept_wheel(builds):
        return kept
    top = wheels_dir()
    scratch = top / ".scratch-cross"
    with workplace.alone(top / ".lock-cross", scratch, "another cross-build"):
        return compile_wheel(Pip(Path(sys.executable), scratch), builds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
