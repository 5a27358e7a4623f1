"""A Python whose environments and whose pip are fakes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.fake_python import FakePython

if TYPE_CHECKING:
    from pathlib import Path

CHOICES = ("EDGESPPO_CC", "EDGESPPO_BACKEND", "CC", "CXX")


@pytest.fixture
def fake(tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> FakePython:
    assert fresh_home.is_dir()
    for name in [name for name in os.environ if name.startswith("PIP_") or name in CHOICES]:
        monkeypatch.delenv(name)
    (tmp_path / "fake").mkdir()
    python = FakePython(tmp_path / "fake", tmp_path / "venv")
    monkeypatch.setattr(sys, "_base_executable", str(python.path))
    python.keep_a_wheel()
    return python
