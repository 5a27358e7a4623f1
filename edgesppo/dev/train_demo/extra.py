"""Import packages that only training needs, with a clear message if one is missing."""

from __future__ import annotations

import importlib
from typing import Any


def need(name: str) -> Any:
    """Import the module `name`, which the optional dependencies `train` install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(
            f'training needs {name.split(".")[0]}: run pip install ".[train]"'
        ) from error
