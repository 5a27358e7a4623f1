"""Owns small GGUF files made by hand, sound or not, byte by byte."""

from __future__ import annotations

import struct
from typing import Any

U32, F32, STRING, ARRAY = 4, 6, 8, 9


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def array(kind: int, items: list[bytes], n: int | None = None) -> bytes:
    return struct.pack("<IQ", kind, len(items) if n is None else n) + b"".join(items)


def info(name: bytes, dims: list[int], kind: int, offset: int) -> bytes:
    shape = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return string(name) + shape + struct.pack("<IQ", kind, offset)


def sound_keys() -> list[bytes]:
    """The least that a Gemma-2 file must say for the preflight."""
    return [
        key(b"general.architecture", STRING, string(b"gemma2")),
        key(b"tokenizer.ggml.tokens", ARRAY, array(STRING, [string(b"a"), string(b"b")])),
        key(b"tokenizer.ggml.scores", ARRAY, array(F32, [struct.pack("<f", 0.0)] * 2)),
        key(b"tokenizer.ggml.token_type", ARRAY, array(U32, [struct.pack("<I", 1)] * 2)),
    ]


def sound_infos() -> list[bytes]:
    return [info(b"one.weight", [32, 2], 0, 0), info(b"two.weight", [256], 12, 256)]


def file(
    keys: list[bytes] | None = None,
    infos: list[bytes] | None = None,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    data: int = 256 + 144,
    **counts: Any,
) -> bytes:
    """A whole file; `counts` may lie about n_tensors and n_keys."""
    keys = sound_keys() if keys is None else keys
    infos = sound_infos() if infos is None else infos
    n_tensors = counts.get("n_tensors", len(infos))
    n_keys = counts.get("n_keys", len(keys))
    head = magic + struct.pack("<IQQ", version, n_tensors, n_keys) + b"".join(keys + infos)
    return head + b"\0" * (-len(head) % 32) + b"\1" * data
