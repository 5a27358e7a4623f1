"""Paths in the checkout, and what lies beside a path."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def names(path: Path) -> set[str]:
    """The names of what is in the folder of a path."""
    return {found.name for found in path.parent.iterdir()}
