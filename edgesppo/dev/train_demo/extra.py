"""Owns the import of what only training needs, and the message when it is missing."""

from __future__ import annotations

import importlib
from typing import Any


def need(name: str) -> Any:
    """The module called `name`, of the development extra `train`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(
            f'training needs {name.split(".")[0]}: run pip install ".[train]"'
        ) from error
