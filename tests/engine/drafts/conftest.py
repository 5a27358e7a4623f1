"""The demo in F32, where the rounding of larger batches is too small to decide a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo.llama.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def model(demo_f32: Path) -> Iterator[Model]:
    model = Model(demo_f32)
    yield model
    model.close()
