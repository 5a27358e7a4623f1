"""The header of a safetensors file: which tensors it has, and where their bytes lie; all checked.

    0        8            8+N                                   end
    | N: u64 | JSON, N B  | tensor bytes, row-major, no gaps     |

The rules are the format's own (https://github.com/huggingface/safetensors#format): no key twice,
only strings as metadata, and tensors that follow each other without gap or overlap and cover the
data exactly. One limit is stricter: the format allows headers of 100,000,000 bytes, but a real one
takes about a hundred bytes a tensor, and a hostile one of that length would take 4 GB of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo_convert.source.json_reader import JsonObject, check_content, parse_json, show

if TYPE_CHECKING:
    from pathlib import Path

MAX_HEADER = 2 << 20  # bytes; parsed, at most 100 MB of memory. Real ones have under 0.1 MB
MAX_NAME = 512
MAX_TENSORS = 100_000
BYTES_OF = {"BF16": 2, "F16": 2, "F32": 4}  # supported dtype -> bytes per element


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor; its bytes are those from `begin` to `end` of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def header_length(start: bytes, total: int, path: Path) -> int:
    """The length of the header in bytes, from the first 8 or more of a file of `total` bytes."""
    if start[8:9] != b"{":  # else its length may look like the beginning of another kind of file
        check_content(start, str(path))
    if len(start) < 8:
        raise BadCheckpoint(
            f"{path} has {total} bytes; expected a safetensors file, which has 8 or more; download"
            " it again"
        )
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER:
        raise BadCheckpoint(
            f"{path} says that its header has {length:,} bytes; expected at most {MAX_HEADER:,},"
            " far more than Gemma-2 needs; is it a safetensors file?"
        )
    if 8 + length > total:
        raise BadCheckpoint(
            f"{path} is truncated: it has {total:,} bytes, but its header alone should take"
            f" {8 + length:,}; is the download complete?"
        )
    return length


def read_entries(data: bytes, total: int, path: Path) -> list[Entry]:
    """The tensors of a header, its JSON `data`, by their place in a file of `total` bytes.

    Raises BadCheckpoint, and UnsupportedCheckpoint for a type that cannot be read.
    """
    header = parse_json(data, f"header of {path}")
    start = 8 + len(data)
    if len(header) > MAX_TENSORS:
        raise BadCheckpoint(
            f"{header.where} lists {len(header):,} tensors; expected at most {MAX_TENSORS:,}"
        )
    if "__metadata__" in header:
        metadata = header.object("__metadata__")
        for name in metadata:
            metadata.text(name)
    names = [name for name in header if name != "__metadata__"]
    entries = [_entry(header, name, start, path) for name in names]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    position = start
    for entry in entries:
        if entry.begin != position:
            fault = "overlaps another" if entry.begin < position else "leaves a gap before it"
            raise BadCheckpoint(
                f"{path}: tensor {show(entry.name)} {fault}: it begins at byte"
                f" {entry.begin - start:,} of the data; expected {position - start:,}"
            )
        position = entry.end
    if position != total:
        fault = "truncated" if position > total else "longer than its header says"
        raise BadCheckpoint(
            f"{path} is {fault}: it has {total:,} bytes, its header describes"
            f" {position:,}; is the download complete?"
        )
    return entries


def _entry(header: JsonObject, name: str, start: int, path: Path) -> Entry:
    """What a header says of one tensor, whose data begin at byte `start` of the file."""
    if not 0 < len(name) <= MAX_NAME:
        raise BadCheckpoint(
            f"{header.where}: {show(name)} is not a tensor name; expected 1 to {MAX_NAME}"
            " characters"
        )
    found = header.object(name)
    dtype = found.text("dtype")
    if dtype not in BYTES_OF:
        raise UnsupportedCheckpoint(
            f"{path}: tensor {show(name)} is stored as {show(dtype)}; only BF16, F16 and"
            f" F32 can be read: {_advice(dtype)}"
        )
    shape = tuple(_sizes(found, "shape"))
    begin, end = (*_sizes(found, "data_offsets"), -1, -1)[:2]
    nbytes = prod(shape) * BYTES_OF[dtype]
    if len(found.items("data_offsets")) != 2 or end - begin != nbytes:
        raise BadCheckpoint(
            f"{path}: tensor {show(name)} of shape {list(shape)} in {dtype} takes"
            f" {nbytes:,} bytes, but its offsets are {show(found.raw('data_offsets'))}"
        )
    return Entry(name, dtype, shape, start + begin, start + end)


def _advice(dtype: str) -> str:
    """What to do about weights of a type that cannot be read."""
    if dtype == "F64":
        return (
            "these are 64-bit floats; load the model with transformers (dtype=torch.bfloat16) and"
            " save it again with save_pretrained"
        )
    bits = next((bits for bits in ("8", "4", "6") if dtype[1:2] == bits), "")
    kind = {"F": "floats", "I": "integers", "U": "integers"}.get(dtype[:1], "values")
    return (
        f"these are {bits and f'{bits}-bit '}{kind} of a quantised model; use the unquantised"
        " checkpoint that it was made from, such as: edgesppo pull OWNER/NAME --convert"
    )


def _sizes(entry: JsonObject, key: str) -> list[int]:
    values = entry.items(key)
    if len(values) > 8 or any(type(v) is not int or not 0 <= v < 1 << 48 for v in values):
        entry.refuse(key, "a list of at most 8 whole numbers, none negative")
    return values
