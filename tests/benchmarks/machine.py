"""The machine and the programs that figures were measured with."""

from __future__ import annotations

import datetime
import platform
import sys
from dataclasses import asdict, dataclass

from edgesppo._version import __version__
from edgesppo.llama import build_info
from edgesppo.native_build import builds
from edgesppo.system import hardware
from tests.benchmarks import peers
from tests.benchmarks.record import THREADS


@dataclass(frozen=True)
class Machine:
    """What has to be known to judge a figure."""

    date: str
    processor: str
    threads: int
    system: str
    python: str
    edgesppo: str
    llama_cpp: str
    compilers: dict[str, str]  # build -> compiler

    def lines(self) -> list[tuple[str, str]]:
        """Name and text of each fact."""
        facts = {name: str(value) for name, value in asdict(self).items() if name != "compilers"}
        facts["llama-cpp-python"] = facts.pop("llama_cpp")
        facts |= {f"compiler of {build}": name for build, name in self.compilers.items()}
        return list(facts.items())


def this_machine() -> Machine:
    """This one. The peers are built if they are not there yet."""
    version, _, _ = build_info.library()
    of_peers = (peers.pip_build(), peers.same_build())
    return Machine(
        date=datetime.date.today().isoformat(),
        processor=hardware.name(),
        threads=THREADS,
        system=f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
        python=sys.version.split()[0],
        edgesppo=__version__,
        llama_cpp=version,
        compilers={
            "ours": builds.possible_builds(version)[0].compiler.identity,
            **{build.name: build.compiler for build in of_peers},
        },
    )
