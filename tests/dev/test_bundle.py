"""The program of a bundle stands in for the Python that edgesppo calls in separate processes."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT

ENTRY = ROOT / "edgesppo" / "dev" / "bundle_entry.py"


def _run(*arguments: str) -> str:
    command = [sys.executable, str(ENTRY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_program_given_as_text_is_run_with_its_arguments() -> None:
    assert _run("-c", "import sys; print(sys.argv, __name__)", "x") == "['-c', 'x'] __main__\n"


def test_anything_else_is_the_command_line() -> None:
    assert _run("--version").startswith("edgesppo")
