"""The program of a bundle stands in for the Python that edgesppo calls in separate processes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.dev import bundle
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = ROOT / "edgesppo" / "dev" / "bundle_entry.py"


def _run(*arguments: str) -> str:
    command = [sys.executable, str(ENTRY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_program_given_as_text_is_run_with_its_arguments() -> None:
    assert _run("-c", "import sys; print(sys.argv, __name__)", "x") == "['-c', 'x'] __main__\n"


def test_anything_else_is_the_command_line() -> None:
    assert _run("--version").startswith("edgesppo")


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    kept = tmp_path / "edgesppo" / "source.py"
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(FileExistsError, match="is no bundle; give another OUT"):
        bundle.make(tmp_path)
    assert [*tmp_path.rglob("*")] == [kept.parent, kept]
