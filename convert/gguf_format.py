"""The GGUF format (version 3, little-endian): lay out a file, and encode all but tensor data.

    magic, version, tensor count, key count
    keys          name, value type, value
    tensor infos  name, sizes (fastest first), block type, offset
    padding to 32
    data          each tensor padded to 32

See https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
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
    """One key of the metadata; if the value is a list, `kind` is the type of its items."""

    key: str
    kind: GGUFValueType
    value: Value


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's entry in the head of the file."""

    name: str
    shape: tuple[int, ...]  # slowest first, as in the checkpoint
    kind: GGMLQuantizationType
    nbytes: int


@dataclass(frozen=True)
class TensorSlot:
    """Where a tensor's data is: bytes [start, end) of the file, then zeros up to `padded_end`."""

    tensor: TensorInfo
    start: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the data."""
        return self.start + self.tensor.nbytes

    @property
    def padded_end(self) -> int:
        """Offset of the first byte after the data and its padding."""
        return padded(self.end)


@dataclass(frozen=True)
class FilePlan:
    """The layout of a file: its head, and a slot for the data of each tensor."""

    head: bytes  # header, keys, infos, padding
    slots: tuple[TensorSlot, ...]

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self.slots[-1].padded_end if self.slots else len(self.head)


def plan_file(keys: Sequence[KeyValue], tensors: Sequence[TensorInfo]) -> FilePlan:
    """Lay out a file with these keys, and these tensors in this order."""
    start = struct.pack("<IIQQ", GGUF_MAGIC, GGUF_VERSION, len(tensors), len(keys))
    offsets = [0]
    for tensor in tensors:
        offsets.append(offsets[-1] + padded(tensor.nbytes))
    infos = map(_info, tensors, offsets)
    head = b"".join((start, *map(_key_value, keys), *infos))
    head += bytes(padded(len(head)) - len(head))
    pairs = zip(tensors, offsets, strict=False)
    return FilePlan(head, tuple(TensorSlot(tensor, len(head) + offset) for tensor, offset in pairs))


def padded(size: int) -> int:
    """`size` rounded up to the alignment of 32 bytes."""
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
