"""Comparing two GGUF files without the keys that describe the source files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gguf import GGUFReader

if TYPE_CHECKING:
    from pathlib import Path


def keys_of(path: Path) -> dict[str, Any]:
    """All keys and values, without those that the reader adds."""
    fields = GGUFReader(path).fields
    return {
        name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")
    }


def model_of(path: Path) -> Any:
    """All keys except `edgesppo.source.*`, and all tensors, both in file order."""
    keys = [item for item in keys_of(path).items() if not item[0].startswith("edgesppo.source.")]
    tensors = [
        (tensor.name, tensor.tensor_type, tensor.shape.tolist(), tensor.data.tobytes())
        for tensor in GGUFReader(path).tensors
    ]
    return keys, tensors
