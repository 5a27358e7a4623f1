"""Owns the fixtures: a home of our own, and the demo model converted and loaded once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.loaded import LoadedModel

# Before llama.cpp is loaded: threads that wait actively for each other slow a busy machine tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Whether the long tests run at their full length: minutes instead of seconds.
LONG = bool(os.environ.get("EDGESPPO_LONG"))
DEMO = Path(__file__).parent.parent / "edgesppo" / "demo"


@pytest.fixture(scope="session", autouse=True)
def edgesppo_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing a test does reaches the user's own cache folder."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPPO_HOME", str(home))
        patch.delenv("EDGESPPO_DEBUG", raising=False)
        yield home


@pytest.fixture(scope="session")
def demo_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped checkpoint as Q4_K_M."""
    return _converted(tmp_path_factory, "q4_k_m")


@pytest.fixture(scope="session")
def demo_f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped checkpoint as F32."""
    return _converted(tmp_path_factory, "f32")


def _converted(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    from edgesppo_convert import convert

    output = tmp_path_factory.mktemp("gguf") / f"demo-{kind}.gguf"
    convert(DEMO, output, type=kind)
    return output


@pytest.fixture(scope="session")
def demo(demo_gguf: Path) -> Iterator[LoadedModel]:
    """The demo, loaded; tests must not close it."""
    import edgesppo

    with edgesppo.load(demo_gguf) as model:
        yield model
