"""Owns the GGUF format (version 3, little-endian), written front to back in its fixed order.

    magic, version, tensor count, key count
    keys          name, value type, value
    tensor infos  name, sizes (fastest first), block type, offset
    padding to 32
    data          each tensor padded to 32

Knows nothing of models: keys, types and bytes are the caller's. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUF_DEFAULT_ALIGNMENT, GGUF_MAGIC, GGUF_VERSION, GGUFValueType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gguf import GGMLQuantizationType

    from edgesppo_convert.files import Bytes, NewFile

    Scalar = int | float | bool | str
    Value = Scalar | Sequence[Scalar]

_NUMBERS = {
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.BOOL: "?",
}


class State(Enum):
    """What is to be written next."""

    KEYS = auto()
    INFOS = auto()
    DATA = auto()
    DONE = auto()


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


class GGUFWriter:
    """Writes one GGUF file; every call checks that its turn has come."""

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._state = State.KEYS
        self._waiting: list[TensorInfo] = []  # last one first
        self._missing = 0  # bytes of the tensor whose turn it is

    def write_keys(self, keys: Sequence[KeyValue], tensors: int) -> None:
        """The header and the metadata."""
        self._expect(State.KEYS)
        self._file.write(struct.pack("<IIQQ", GGUF_MAGIC, GGUF_VERSION, tensors, len(keys)))
        self._file.write(b"".join(map(_key_value, keys)))
        self._state = State.INFOS

    def write_infos(self, tensors: Sequence[TensorInfo]) -> None:
        """Announce the tensors, in the order in which their data will follow."""
        self._expect(State.INFOS)
        offset = 0
        for tensor in tensors:
            self._file.write(_info(tensor, offset))
            offset += padded(tensor.nbytes)
        self._pad()
        self._waiting = list(reversed(tensors))
        self._state = State.DATA
        self._next_tensor()

    def write_data(self, data: Bytes) -> None:
        """The next bytes of the tensor whose turn it is."""
        self._expect(State.DATA)
        if len(data) > self._missing:
            raise ValueError(f"{len(data)} bytes where the tensor lacks only {self._missing}")
        self._file.write(data)
        self._missing -= len(data)
        if not self._missing:
            self._pad()
            self._next_tensor()

    def finish(self) -> None:
        """Check that all that was announced has been written."""
        self._expect(State.DONE)

    def _next_tensor(self) -> None:
        if self._waiting:
            self._missing = self._waiting.pop().nbytes
        else:
            self._state = State.DONE

    def _pad(self) -> None:
        self._file.write(bytes(padded(self._file.size) - self._file.size))

    def _expect(self, state: State) -> None:
        if self._state is not state:
            raise ValueError(f"it is the turn of {self._state.name}, not of {state.name}")


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
