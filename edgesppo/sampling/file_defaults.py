"""The sampling parameters that a GGUF file sets as its model's defaults (general.sampling.*)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile, UsageError
from edgesppo.sampling.params import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Sampling parameter -> the key's name behind "general.sampling.".
_KEYS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "penalty_repeat",
}


def file_defaults(path: Path, keys: Mapping[str, Any]) -> SamplingParams:
    """The defaults for a model: those in its file's `keys`, else those of SamplingParams.

    Raises BadModelFile for a value out of range.
    """
    own = {
        name: keys[f"general.sampling.{key}"]
        for name, key in _KEYS.items()
        if f"general.sampling.{key}" in keys
    }
    try:
        return SamplingParams().replace(**own)
    except UsageError as error:
        raise BadModelFile(
            f"{path}: invalid general.sampling.* values: {error}; convert the checkpoint again "
            "with edgesppo convert"
        ) from None
