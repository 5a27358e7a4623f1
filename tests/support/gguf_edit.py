"""Copies of a GGUF file with a few values changed in place, so that everything else stays."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from edgesppo.gguf import gemma2

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def retyped(source: Path, target: Path, names: Iterable[str], kind: int) -> Path:
    """A copy in which these tokens have the type `kind` (GGUF's number)."""
    summary = gemma2.load_summary(source)
    tokens = gemma2.read_array(summary, "tokenizer.ggml.tokens")
    types = summary.arrays["tokenizer.ggml.token_type"]
    data = bytearray(source.read_bytes())
    for name in names:
        struct.pack_into("<i", data, types.offset + 4 * tokens.index(name), kind)
    target.write_bytes(data)
    return target


def with_bytes(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    """A copy in which the first `old` is replaced by `new`, which is as long."""
    data = source.read_bytes()
    assert len(old) == len(new)
    assert old in data
    target.write_bytes(data.replace(old, new, 1))
    return target


def with_number(source: Path, target: Path, key: str, value: int) -> Path:
    """A copy in which a key's 32-bit whole number is replaced."""
    data = source.read_bytes()
    at = data.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key) + 4
    target.write_bytes(data[:at] + struct.pack("<I", value) + data[at + 4 :])
    return target
