"""A small checkpoint, and the file that an undisturbed conversion makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo_convert import convert
from edgesppo_convert.output import output
from tests.support.checkpoints import SMALL, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "model", SMALL, shards=2)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("whole") / "model.gguf"
    convert(source, out)
    return out.read_bytes()


@pytest.fixture(autouse=True)
def _claim_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "RECORD_EVERY", 1)
