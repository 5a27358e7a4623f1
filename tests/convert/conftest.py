"""Small checkpoints, and a place for what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.bad_checkpoint import SHAPE
from tests.support.checkpoints import write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", SHAPE)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", SHAPE, shards=3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A name for an output, alone in its folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"
