"""Owns the GGUF format (version 3, little-endian): every byte but the tensors' own.

    magic, version, tensor count, key count
    keys          name, value type, value
    tensor infos  name, sizes (fastest first), block type, offset
    padding to 32
    data          each tensor padded to 32

Knows nothing of models, and writes nothing: keys and types are the caller's. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUF_DEFAULT_ALIGNMENT, GGUF_MAGIC, GGUF_VERSION, GGUFValueType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gguf import GGMLQuantizationType

    Scalar = int | float | bool | str
    Value = Scalar | Sequence[Scalar]

_NUMBERS = {
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.BOOL: "?",
}


@dataclass(frozen=True)
class KeyValue:
    """One key of the metadata; a list's `kind` is that of its items."""

    key: str
    kind: GGUFValueType
    value: Value


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the file announces it."""

    name: str
    shape: tuple[int, ...]  # slowest first, as in the checkpoint
    kind: GGMLQuantizationType
    nbytes: int


@dataclass(frozen=True)
class Place:
    """Where a tensor's data goes: from byte `at` of the file to before `end`, zeros to `next`."""

    tensor: TensorInfo
    at: int

    @property
    def end(self) -> int:
        """Where its data ends."""
        return self.at + self.tensor.nbytes

    @property
    def next(self) -> int:
        """Where what follows it begins."""
        return padded(self.end)


@dataclass(frozen=True)
class FilePlan:
    """A whole file before its first tensor is known: its head, and a place for each tensor."""

    head: bytes  # header, keys, infos, padding
    places: tuple[Place, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.places[-1].next if self.places else len(self.head)


def plan_file(keys: Sequence[KeyValue], tensors: Sequence[TensorInfo]) -> FilePlan:
    """Lay the tensors out in this order, behind the keys."""
    start = struct.pack("<IIQQ", GGUF_MAGIC, GGUF_VERSION, len(tensors), len(keys))
    offsets = [0]
    for tensor in tensors:
        offsets.append(offsets[-1] + padded(tensor.nbytes))
    infos = map(_info, tensors, offsets)
    head = b"".join((start, *map(_key_value, keys), *infos))
    head += bytes(padded(len(head)) - len(head))
    places = (Place(tensor, len(head) + at) for tensor, at in zip(tensors, offsets, strict=False))
    return FilePlan(head, tuple(places))


def padded(size: int) -> int:
    """The size, rounded up to the alignment."""
    return -(-size // GGUF_DEFAULT_ALIGNMENT) * GGUF_DEFAULT_ALIGNMENT


def _key_value(entry: KeyValue) -> bytes:
    name, value = _text(entry.key), entry.value
    if isinstance(value, int | float | str):
        return name + struct.pack("<I", entry.kind) + _pack(entry.kind, [value])
    head = struct.pack("<IIQ", GGUFValueType.ARRAY, entry.kind, len(value))
    return name + head + _pack(entry.kind, value)


def _pack(kind: GGUFValueType, values: Sequence[Scalar]) -> bytes:
    if kind is GGUFValueType.STRING:
        return b"".join(_text(str(value)) for value in values)
    return np.array(values, _NUMBERS[kind]).tobytes()


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _info(tensor: TensorInfo, offset: int) -> bytes:
    sizes = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
    return _text(tensor.name) + sizes + struct.pack("<IQ", tensor.kind, offset)
