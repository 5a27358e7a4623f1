"""The arrays of a GGUF file whose header was read: their items, and whether two are the same."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from edgesppo.errors import BadModelFile
from edgesppo.gguf.reader import SCALARS, STRING
from edgesppo.gguf.strings import MAX_STRING

if TYPE_CHECKING:
    from edgesppo.gguf.reader import Summary


def read_array(
    summary: Summary, key: str, head: bytes | None = None, *, file: BinaryIO | None = None
) -> list[Any]:
    """The items of an array; bytes of strings that are not UTF-8 are escaped.

    They are read from the file at `summary.path`, or from an open `file`, which is closed, or from
    the `head` of a file that is yet to be written.
    """
    array = summary.arrays[key]
    if file is None:
        file = summary.path.open("rb") if head is None else io.BytesIO(head)
    with file:
        file.seek(array.offset)
        if array.element_type == STRING:
            return [_string(file, summary) for _ in range(array.length)]
        form = f"<{array.length}{SCALARS[array.element_type]}"
        return list(struct.unpack(form, _read(file, struct.calcsize(form), summary)))


def same_array(one: Summary, other: Summary, key: str) -> bool:
    """Whether two files have the same array, by its bytes; far faster than by its items."""
    contents = []
    for summary in (one, other):
        array = summary.arrays[key]
        with summary.path.open("rb") as file:
            file.seek(array.offset)
            contents.append((array.element_type, array.length, file.read(array.n_bytes)))
    return contents[0] == contents[1]


def _string(file: BinaryIO, summary: Summary) -> str:
    (length,) = struct.unpack("<Q", _read(file, 8, summary))
    return _read(file, min(length, MAX_STRING), summary).decode("utf-8", "backslashreplace")


def _read(file: BinaryIO, length: int, summary: Summary) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise BadModelFile(f"{summary.path} became shorter after its header was read; try again")
    return data
