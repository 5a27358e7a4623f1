"""The demo model, loaded for several answers at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel


@pytest.fixture(scope="package")
def wide(demo_gguf: Path) -> Iterator[LoadedModel]:
    """The demo model, loaded for four answers at once."""
    import edgesppo

    with edgesppo.load(demo_gguf, n_seqs=4) as model:
        yield model
