"""Tuning that measures little, of a demo that is taken for large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo.gguf import gemma2
from edgesppo.planning import run_config
from tests.support.tuning import measure_little

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.gguf.gemma2 import Summary


@pytest.fixture(autouse=True)
def _little_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_little(monkeypatch)


@pytest.fixture
def summary(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Summary:
    """The demo, as if it were large enough to be measured, and an empty cache folder."""
    monkeypatch.setattr(run_config, "_WORTH_TUNING", 0)
    monkeypatch.setenv("EDGESPPO_HOME", str(tmp_path / "home"))
    return gemma2.load_summary(demo_gguf)
