"""The rows of a batch's input: where each lies in the file, its checksum, and the hash of all.

Rows are lines of JSON, or the items of one JSON list. Only positions and short keys are kept in
memory, so that the input may be large.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgesppo.errors import UsageError
from edgesppo.system.text_input import MAX_BYTES, sign_of_another_encoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
_MAX_LIST_BYTES = 1 << 30  # a JSON list is read at once


# The number that stands for all answers to a row, in one line.
ALL = -1
# A row and the number of an answer, or ALL.
Key: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """Where a row lies: its number from 1 on (that of its line), offset, bytes and checksum.

    Where each answer to a row has a line of its own in the output, `answer` is its number.
    """

    row: int
    offset: int
    n_bytes: int
    crc: int
    answer: int = ALL

    @property
    def key(self) -> Key:
        """What its line of the output is known by."""
        return self.row, self.answer

    @property
    def is_too_long(self) -> bool:
        """Whether the row is longer than any context, and is not read."""
        return self.n_bytes > MAX_BYTES


class InputRows:
    """The rows of an input, in the order of the file; a context manager that closes the file.

    `name` is for messages, `sha256` the hash of the whole input, `places` where its rows lie.
    Lines without text are no rows. Raises UsageError for an input that is no such file.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self.places: list[Place] = []
        self._file = file
        try:
            self.sha256 = self._index()
            if not self.places:
                raise UsageError(f"{name} has no rows, expected lines of JSON or a JSON list")
        except BaseException:
            file.close()
            raise

    def _index(self) -> str:
        start = self._file.read(_BLOCK)
        if start.startswith(b"GGUF"):
            raise UsageError(
                f"{self.name} is a model file, expected rows: MODEL IN OUT, in this order"
            )
        if sign := sign_of_another_encoding(start):
            raise UsageError(f"{self.name} is not UTF-8 text: {sign}; save it as UTF-8")
        self._file.seek(0)
        if not start.removeprefix(_BOM).lstrip().startswith(b"["):
            return self._index_lines()
        with self._file as file:
            return self._index_list(file)

    def _index_list(self, file: BinaryIO) -> str:
        """Index a JSON list; its items become lines of a file in memory."""
        data = file.read(_MAX_LIST_BYTES + 1)
        if len(data) > _MAX_LIST_BYTES:
            raise UsageError(f"{self.name} is a JSON list of more than 1 GB; make it JSON Lines")
        try:
            items = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{self.name} begins like a JSON list, but is none: {error}; expected lines of "
                "JSON or a JSON list"
            ) from None
        self._file = io.BytesIO(b"".join(as_lines(items)))
        self._index_lines()
        return hashlib.sha256(data).hexdigest()

    def _index_lines(self) -> str:
        """Find every line that is not empty; returns the hash of all of them."""
        hasher, offset = hashlib.sha256(), 0
        for row, (n_bytes, crc, is_empty) in enumerate(self._lines(hasher), 1):
            if not is_empty:
                self.places.append(Place(row, offset, n_bytes, crc))
            offset += n_bytes
        return hasher.hexdigest()

    def _lines(self, hasher: Any) -> Iterator[tuple[int, int, bool]]:
        """The length and checksum of each line, and whether it has no text."""
        n_bytes = crc = 0
        is_empty = True
        while piece := self._file.readline(_BLOCK):
            hasher.update(piece)
            n_bytes, crc = n_bytes + len(piece), zlib.crc32(piece, crc)
            is_empty = is_empty and not piece.removeprefix(_BOM).strip()
            if piece.endswith(b"\n"):
                yield n_bytes, crc, is_empty
                n_bytes, crc, is_empty = 0, 0, True
        if n_bytes:
            yield n_bytes, crc, is_empty

    def read(self, place: Place) -> bytes:
        """The bytes of a row; none of one that is too long.

        Raises UsageError if the file was changed since it was indexed.
        """
        if place.is_too_long:
            return b""
        self._file.seek(place.offset)
        data = self._file.read(place.n_bytes)
        if zlib.crc32(data) != place.crc:
            raise UsageError(
                f"{self.name} was changed while the batch ran (row {place.row}); put it back and "
                "run the batch again, or use another output"
            )
        return data.removeprefix(_BOM).strip()

    def __enter__(self) -> InputRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def as_lines(items: Iterable[Any]) -> Iterator[bytes]:
    """Each item as a line of JSON. Raises UsageError for what JSON cannot hold."""
    for n, item in enumerate(items, 1):
        try:
            yield json.dumps(item).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"row {n} cannot be written as JSON: {error}") from None


def open_rows(source: str | Path | Iterable[Any] | BinaryIO) -> InputRows:
    """The rows of a file, of an open binary stream (read to its end), or of values in memory."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.is_dir():
            raise UsageError(f"{source} is a folder, expected a file of JSON Lines")
        try:
            file = path.open("rb")
            if not file.seekable():  # a pipe
                with file:
                    return InputRows(io.BytesIO(file.read()), str(source))
            return InputRows(file, str(source))
        except OSError as error:
            raise UsageError(f"{source}: cannot be read: {error.strerror or error}") from None
    read = getattr(source, "read", None)
    if read is not None:
        return InputRows(io.BytesIO(read()), "the input")
    if isinstance(source, bytes | dict) or not hasattr(source, "__iter__"):
        raise UsageError(
            f"the rows have the type {type(source).__name__}, expected a file's name or a list of "
            'rows, such as [{"prompt": "..."}]'
        )
    return InputRows(io.BytesIO(b"".join(as_lines(source))), "the input")
