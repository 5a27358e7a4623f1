"""A child process: what it is at is told, and when it fails, its last lines."""

from __future__ import annotations

import os
import sys

import pytest

from edgesppo.native_build import child
from edgesppo.native_build.failure import Failed


def test_it_is_told_what_a_child_is_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    program = (
        "import time; print('  [3/7] Building x.o', flush=True); time.sleep(1.2);"
        "print('Collecting numpy>=1.24', flush=True); time.sleep(1);"
        "print('Building wheel for numpy (pyproject.toml)', flush=True); time.sleep(0.8)"
    )
    child.run([sys.executable, "-c", program], os.environ, "trying", "tried")
    shown = capsys.readouterr().err
    assert "  step 3 of 7, " in shown
    assert "  fetching numpy, " in shown
    assert "  building numpy, " in shown
    assert "  tried in " in shown


def test_a_failed_child_tells_its_last_lines() -> None:
    program = "print('error: no such header'); raise SystemExit(1)"
    with pytest.raises(Failed, match="while trying") as caught:
        child.run([sys.executable, "-c", program], os.environ, "trying")
    assert caught.value.lines == ["error: no such header"]
