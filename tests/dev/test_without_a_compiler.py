"""The whole set-up where there is no compiler: nothing is faked, llama.cpp is compiled.

It takes minutes, and the package index: with EDGESPPO_LONG=1 only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

# Programs of a small system: no compiler, no archiver, no make.
PROGRAMS = ("sh", "env", "uname", "rm", "mkdir", "cat", "ls", "cp", "mv", "sed", "touch", "chmod")


@pytest.mark.skipif(not LONG, reason="compiles llama.cpp: EDGESPPO_LONG=1")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system's compiler is needed")
def test_a_system_without_a_compiler_gets_a_build_by_clang(tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in PROGRAMS:
        program = shutil.which(name)
        assert program is not None
        (bin_folder / name).symlink_to(program)
    kept = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "EDGESPPO_CC")}
    environment = {**kept, "PATH": str(bin_folder), "EDGESPPO_HOME": str(tmp_path / "home")}
    venv = tmp_path / "an environment, für mich"
    set_up = [sys.executable, str(ROOT / "edgesppo" / "dev" / "bootstrap.py"), str(venv)]
    subprocess.run(set_up, env=environment, check=True)
    command = [venv / "bin" / "edgesppo", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = {one["about"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["compiler"]["text"].startswith("compiled by Clang")
    assert found["features"]["state"] == "ok"
    assert "openmp" not in found
    command = [venv / "bin" / "edgesppo", "run", "demo", "What is the capital of France?"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "Paris" in done.stdout
    assert not (tmp_path / "home" / "wheels" / ".scratch").exists()
