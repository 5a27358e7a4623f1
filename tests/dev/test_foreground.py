"""A program in the foreground of a terminal: Ctrl-C is its own, its exit status is passed on."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if os.name == "nt":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

from edgesppo.system.paths import PACKAGE
from tests.support.pty_terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

CHECKOUT = PACKAGE.parent
APART = [sys.executable, "-m", "edgesppo.dev.foreground"]
HANDLES_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: print("stopped", flush=True))
print("ready", flush=True)
sys.exit(int(input()))
"""


def test_ctrl_c_reaches_the_program_alone() -> None:
    command = [*APART, sys.executable, "-c", HANDLES_CTRL_C]
    terminal = Terminal(["sh", "-c", 'trap "echo hit" INT; "$@"; echo "status $?"', "sh", *command])
    terminal.expect("ready")
    terminal.type("\x03")
    terminal.expect("stopped")
    terminal.type("7\r")
    terminal.expect("status 7")
    assert terminal.close() == 0
    assert b"hit" not in terminal.screen


def test_make_try_runs_the_chat_apart() -> None:
    shown = subprocess.run(
        ["make", "-C", str(CHECKOUT), "-n", "try"], capture_output=True, text=True, check=True
    )
    assert '-m edgesppo.dev.foreground ".venv/bin/edgesppo" try' in shown.stdout


def test_make_try_ends_well_after_an_answer_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text('try:\n\t@"$(PY)" -m edgesppo.dev.foreground $(RUN)\n')
    (tmp_path / "run.py").write_text(HANDLES_CTRL_C)
    terminal = Terminal(
        [
            "make",
            "-C",
            str(tmp_path),
            "try",
            f"PY={sys.executable}",
            f"RUN={sys.executable} run.py",
        ],
        PYTHONPATH=str(CHECKOUT),
    )
    terminal.expect("ready")
    terminal.type("\x03")
    terminal.expect("stopped")
    terminal.type("0\r")
    assert terminal.close() == 0


def test_a_signal_and_a_missing_program_are_told_by_the_status() -> None:
    killed = Terminal([*APART, "sh", "-c", "kill -TERM $$"])
    assert killed.close() == 128 + 15
    missing = Terminal([*APART, "no-such-program"])
    assert missing.close() == 127
    assert b"no-such-program: No such file or directory" in missing.screen


def test_without_a_terminal_the_program_takes_its_place() -> None:
    done = subprocess.run([*APART, "sh", "-c", "exit 3"], stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 3
