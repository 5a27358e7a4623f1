"""The model of the tests of who waits for whom: one that ends no answer by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo.llama.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def model(babbler: Path) -> Iterator[Model]:
    loaded = Model(babbler)
    yield loaded
    loaded.close()
