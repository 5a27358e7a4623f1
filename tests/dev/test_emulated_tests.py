"""An emulated Python is started by a script, which it takes for itself."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.dev import emulated_tests

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")


def test_without_a_folder_the_usage_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert emulated_tests.main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_launcher_hands_its_own_name_and_all_arguments_to_the_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = tmp_path / emulated_tests._QEMU
    emulator.write_text(f"#!{sys.executable}\nimport sys; print(sys.argv[1:])\n")
    emulator.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    root, real = tmp_path / "a root", tmp_path / "a root" / "python3.11"
    emulated_tests._write_launcher(tmp_path, root, real)
    launcher = tmp_path / "bin" / "python"
    done = subprocess.run([launcher, "-c", "a b"], capture_output=True, text=True, check=True)
    expected = ["-L", str(root), "-0", str(launcher), str(real), "-c", "a b"]
    assert done.stdout == f"{expected}\n"


def test_what_is_compiled_is_not_also_fetched() -> None:
    names = emulated_tests._requirements()
    assert not any(name.startswith("llama-cpp-python") for name in names)
    assert any(name.startswith("numpy") for name in names)
    assert any(name.startswith("pytest>") for name in names)
