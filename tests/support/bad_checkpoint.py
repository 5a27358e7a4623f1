"""Checkpoints with one thing wrong, and the check that converting such a one is refused."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo_convert import convert
from tests.support.checkpoints import SHAPES, write_json
from tests.support.messages import checked_message

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.errors import EdgesppoError

SHAPE = SHAPES["odd"]
SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"


def refused(folder: Path, kind: type[EdgesppoError], *words: str) -> None:
    """Check that converting fails with this type of error, on one line, and leaves no file."""
    out = folder.parent / "out"
    out.mkdir()
    with pytest.raises(kind) as caught:
        convert(folder, out / "model.gguf")
    checked_message(caught.value, kind, *words)
    assert list(out.iterdir()) == []


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    write_json(path, value)


def change_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Replace the header; the tensors' bytes stay the same."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[start:])


def poke(path: Path, name: str, element: int, half: int) -> None:
    """Overwrite one bfloat16 element of a tensor."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    begin = start + json.loads(data[8:start])[name]["data_offsets"][0]
    data[begin + 2 * element : begin + 2 * element + 2] = struct.pack("<H", half)
    path.write_bytes(data)


Header = dict[str, Any]


def append_tensor(
    folder: Path, name: str, shape: list[int], data: bytes, dtype: str = "BF16"
) -> None:
    path = folder / "model.safetensors"

    def add(header: Header) -> None:
        end = header[NORM]["data_offsets"][1]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}

    change_header(path, add)
    with path.open("ab") as file:
        file.write(data)
