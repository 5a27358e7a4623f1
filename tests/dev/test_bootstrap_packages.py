"""What the set-up has pip install, with which settings, and what is shown when it fails."""

from __future__ import annotations

import os

import pytest

from tests.support.fake_python import FakePython, set_up
from tests.support.paths import ROOT

FULL = "OSError: [Errno 28] No space left on device"
NO_NUMBA = "ERROR: No matching distribution found for numba>=0.60; extra == 'fast'"
UNPACKING = "Installing collected packages: numpy, edgesppo"


@pytest.mark.parametrize("pip", ["21.2.3", "22.0.2"])
def test_an_old_pip_is_brought_up_to_date_before_anything_else(fake: FakePython, pip: str) -> None:
    fake.behave(pip=pip)
    assert set_up(fake) == 0
    assert "install --upgrade pip>=22.1" in fake.installed()[2]


@pytest.mark.parametrize("pip", ["22.1", "23.0.1", "26.3"])
def test_a_newer_pip_stays(fake: FakePython, pip: str) -> None:
    fake.behave(pip=pip)
    assert set_up(fake) == 0
    assert not any("--upgrade" in line for line in fake.installed())


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("after connection broken by 'NewConnectionError", "the package index was not reached"),
        ("ERROR: No matching distribution found for pip>=22.1", "ERROR: No matching"),
    ],
)
def test_an_old_pip_that_cannot_be_brought_up_to_date_is_named(
    fake: FakePython, capsys: pytest.CaptureFixture[str], printed: str, said: str
) -> None:
    fake.behave({"--upgrade": {"prints": printed, "exit": 1}}, pip="22.0.2")
    assert set_up(fake) == 1
    *_, shown, line = capsys.readouterr().err.splitlines()
    assert shown == printed
    assert "bringing pip 22.0.2 up to date (22.1 or newer is needed): " + said in line


def test_only_pips_settings_of_where_packages_are_reach_it(
    fake: FakePython, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_ONLY_BINARY", ":all:")
    monkeypatch.setenv("PIP_INDEX_URL", "https://own.example/simple")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    listed = [
        "For variant 'global', will try loading '/etc/pip.conf'",
        "global.index-url='https://overruled.example'",
        "global.proxy='http://overruled.example'",
        "global.user='true'",
        "install.proxy='http://proxy.example'",
        "install.no-binary=':all:'",
    ]
    fake.behave({"config list": {"prints": "\n".join(listed)}})
    assert set_up(fake) == 0
    line, env = fake.calls()[-1]
    assert "--editable" in line
    assert env == {
        "PIP_INDEX_URL": "https://own.example/simple",
        "PIP_PROXY": "http://proxy.example",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "TMPDIR": str(fake.venv / ".edgesppo-scratch"),
    }


def test_a_configuration_that_pip_cannot_read_is_done_without(
    fake: FakePython, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.behave({"config list": {"prints": "ERROR: no section headers", "exit": 1}})
    assert set_up(fake) == 0
    said = "Going on without pip's configuration, which it cannot read: ERROR: no section headers"
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("fails", [False, True])
def test_what_pip_prints_is_shown_only_when_it_fails(
    fake: FakePython, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    lines = [f"WARNING: odd {number}" for number in range(40)]
    fake.behave({"--editable": {"prints": "\n".join(lines), "exit": int(fails)}})
    assert set_up(fake) == int(fails)
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARN")]
    assert shown == (lines[-len(shown) :] if fails else [])
    assert bool(shown) == fails


@pytest.mark.parametrize(
    ("printed", "again"), [("ERROR: it is not there", 2), (f"{UNPACKING}\nERROR: it is torn", 4)]
)
def test_only_a_failure_while_packages_change_makes_the_environment_anew(
    fake: FakePython, printed: str, again: int
) -> None:
    set_up(fake)
    fake.behave({"--editable": {"prints": printed, "exit": 1}})
    assert set_up(fake, "test") == 1
    fake.calls()
    fake.behave()
    assert set_up(fake, "test") == 0
    assert len(fake.installed()) == again
    assert set_up(fake) == 0


def test_numba_is_never_compiled_and_done_without_where_it_has_no_wheel(
    fake: FakePython, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.behave({f"{ROOT}[fast]": {"prints": NO_NUMBA, "exit": 1}})
    assert set_up(fake, "fast") == 0
    with_it, without = fake.installed()[-2:]
    assert "--only-binary numba,llvmlite" in with_it
    assert without.endswith(f"--editable {ROOT}")
    assert capsys.readouterr().err.count("numba has no wheel") == 1
    assert set_up(fake, "fast") == 0
    assert fake.calls() == []


@pytest.mark.parametrize(
    ("extra", "printed"), [("fast", "ERROR: numba: connection lost"), ("test", NO_NUMBA)]
)
def test_another_failure_is_not_laid_to_numba(
    fake: FakePython, capsys: pytest.CaptureFixture[str], extra: str, printed: str
) -> None:
    fake.behave({"--editable": {"prints": printed, "exit": 1}})
    assert set_up(fake, extra) == 1
    assert capsys.readouterr().err.endswith(f"while installing the packages: {printed}\n")


@pytest.mark.parametrize("step", ["ensurepip", "--upgrade", "pip wheel", "--editable"])
def test_a_full_disk_is_called_that_in_one_line(
    fake: FakePython, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    fake.keep_a_wheel().unlink()
    fake.behave({step: {"prints": f"Traceback ...\n{FULL}", "exit": 1}}, pip="22.0.2")
    assert set_up(fake) == 1
    shown = capsys.readouterr().err
    assert shown.endswith(f": the disk of {fake.venv} is full\n")
    assert "Traceback" not in shown
