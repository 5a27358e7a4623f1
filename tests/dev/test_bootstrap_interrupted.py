"""The first set-up, cut short at each of its steps, and two of them at once."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fake_python import set_up
from tests.support.paths import ROOT
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from tests.support.fake_python import FakePython

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and make as on POSIX")

ENTRY = ROOT / "edgesppo" / "dev" / "bootstrap.py"
PATIENCE = 60
STEPS = ["-m venv", "ensurepip", "config list", "--upgrade", "pip wheel", "--force", "--editable"]
UNPACKING = "Installing collected packages: numpy, edgesppo"
# Runs a file, as `python FILE ARGUMENT ...` does; environments are made of the fake.
RUN_WITH = (
    "import runpy, sys; sys._base_executable = sys.argv[1]; del sys.argv[:2]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def start(fake: FakePython, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", before + RUN_WITH, fake.path, ENTRY, fake.venv]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        if sys.platform == "linux":
            return False
        return (
            subprocess.run(["ps", "-p", str(pid)], capture_output=True, check=False).returncode == 0
        )
    return state != "Z"


def wait_for_end_of(pids: list[int]) -> None:
    until = time.monotonic() + PATIENCE
    while any(map(is_running, pids)):
        assert time.monotonic() < until, "they go on"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("step", "number"),
    [
        (step, number)
        for at, step in enumerate(STEPS)
        for n, number in enumerate((signal.SIGINT, signal.SIGTERM))
        if LONG or at % 2 == n
    ],
)
def test_cut_short_at_any_step_it_ends_its_children_and_is_done_the_next_time(
    fake: FakePython, step: str, number: signal.Signals
) -> None:
    fake.keep_a_wheel().unlink()
    fake.behave({step: {"waits": True}}, pip="22.0.2")
    process = start(fake)
    children = fake.waiting()
    process.send_signal(number)
    code, said = end(process)
    assert code == 130
    assert said.endswith("set-up interrupted, cleaning up; the same command goes on with it\n")
    assert "Traceback" not in said
    wait_for_end_of(children)
    hidden = {path.name for path in fake.venv.iterdir() if path.name.startswith(".")}
    assert hidden <= {".edgesppo-unfinished"}
    fake.behave(pip="22.0.2")
    assert set_up(fake) == 0


@pytest.mark.parametrize(("printed", "made"), [("Collecting numpy", False), (UNPACKING, True)])
def test_it_is_made_anew_where_packages_were_being_changed(
    fake: FakePython, printed: str, made: bool
) -> None:
    fake.behave({"--editable": {"waits": True, "prints": printed}})
    process = start(fake)
    fake.waiting()
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130
    fake.calls()
    fake.behave()
    assert set_up(fake) == 0
    assert any("-m venv" in line for line in fake.installed()) == made


def test_a_second_signal_does_not_wait_for_a_slow_disk(fake: FakePython) -> None:
    fake.behave({"--editable": {"waits": True}})
    slow = "import os, shutil, time; shutil.rmtree = lambda f, **_: f.exists() and time.sleep(600);"
    process = start(fake, slow)
    fake.waiting()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "interrupted" not in process.stderr.readline():
        assert process.poll() is None
    code = None
    while code is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(timeout=0.1)
    said = process.stderr.read()
    process.stderr.close()
    assert (code, said) == (-signal.SIGINT, "")


def test_killed_while_packages_are_installed_it_is_made_anew(fake: FakePython) -> None:
    fake.behave({"--editable": {"waits": True}})
    process = start(fake)
    children = fake.waiting()
    process.kill()
    end(process)
    os.kill(children[0], signal.SIGTERM)
    fake.calls()
    fake.behave()
    assert set_up(fake) == 0
    assert "-m venv" in fake.installed()[0]


def test_what_a_killed_set_up_left_running_is_waited_for(fake: FakePython) -> None:
    """pip goes on alone: nothing is removed under its hands."""
    fake.behave({"--editable": {"waits": True}})
    first = start(fake)
    fake.waiting()
    first.kill()
    end(first)
    fake.calls()
    fake.behave()
    second = start(fake)
    assert second.stderr is not None
    assert second.stderr.readline().startswith("Waiting for another set-up of this checkout")
    assert fake.calls() == []
    fake.go_on()
    assert end(second)[0] == 0
    assert "-m venv" in fake.installed()[0]


def test_of_two_at_once_the_second_waits_and_finds_all_done(fake: FakePython) -> None:
    fake.behave({"--editable": {"waits": True}})
    first = start(fake)
    fake.waiting()
    fake.calls()
    second = start(fake)
    assert second.stderr is not None
    said = second.stderr.readline()
    assert f"Waiting for another set-up of this checkout (process {first.pid}" in said
    fake.go_on()
    assert end(first)[0] == end(second)[0] == 0
    assert fake.calls() == []


def test_the_second_of_two_can_be_interrupted_and_leaves_the_first_alone(fake: FakePython) -> None:
    fake.behave({"--editable": {"waits": True}})
    first = start(fake)
    fake.waiting()
    second = start(fake)
    assert second.stderr is not None
    second.stderr.readline()
    second.send_signal(signal.SIGINT)
    assert end(second)[0] == 130
    fake.go_on()
    assert end(first)[0] == 0


def test_ctrl_c_while_our_own_files_load_is_silent(tmp_path: Path) -> None:
    program = (
        "import os, runpy, signal, sys; sys.argv = sys.argv[1:]\n"
        "class Press:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.startswith('edgesppo'):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", program, str(ENTRY), str(tmp_path / "venv")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_ctrl_c_while_python_itself_starts_shows_makes_own_lines_only(tmp_path: Path) -> None:
    """The file stands for a Python that has not come to our first line."""
    python, pid = tmp_path / "python", tmp_path / "pid"
    slow = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid()) + chr(10)); "
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{slow}time.sleep(600)"\n')
    python.chmod(0o755)
    make = subprocess.Popen(
        ["make", "-C", ROOT, "try", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not pid.exists() or not pid.read_text().endswith("\n"):
        time.sleep(0.02)
    os.killpg(make.pid, signal.SIGINT)
    code, said = end(make)
    assert code != 0
    # One line, or three of a GNU make whose child ended just as it handled the signal, and which
    # waits for it twice. make[1] where another make runs the tests.
    assert said
    assert all(re.match(r"make(\[\d+\])?: \*\*\* ", line) for line in said.splitlines()), said
    wait_for_end_of([int(pid.read_text())])


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_sets_up_a_checkout_of_an_odd_name_from_another_folder(
    fake: FakePython, tmp_path: Path
) -> None:
    checkout = tmp_path / "a checkout, für mich"
    kept = shutil.ignore_patterns("demo", "__pycache__")
    shutil.copytree(ROOT / "edgesppo", checkout / "edgesppo", ignore=kept)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{RUN_WITH}" {fake.path} "$@"\n')
    launcher.chmod(0o755)
    make = ["make", "-s", "-C", checkout, "try", f"PYTHON={launcher}"]
    for said in (
        "Making the virtual environment .venv\nInstalling edgesppo and its Python packages\n",
        "",
    ):
        ended = subprocess.run(make, cwd="/", capture_output=True, text=True, check=True)
        assert ended.stdout == "a chat\n"
        assert ended.stderr.startswith(said)
        assert bool(ended.stderr) == bool(said)
    assert any(f"--editable {checkout}[fast,server]" in line for line in fake.installed())
