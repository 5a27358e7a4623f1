"""Owns one safetensors file: its header's rules, and reading a span of a tensor into a buffer.

    0        8            8+N                                   end
    | N: u64 | JSON, N B  | tensor bytes, row-major, no gaps     |

The rules are the format's own (https://github.com/huggingface/safetensors#format): no key twice,
metadata of texts only, spans that follow each other without hole or overlap and cover the buffer
exactly. Only the header may not be as long as the format allows, 100,000,000 bytes: a sound one
takes a hundred bytes a tensor, and a hostile one of that length four gigabytes of memory. Knows
nothing of folders or of what the tensors mean.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo_convert.source.json_reader import JsonObject, parse_json, show, unreadable

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

MAX_HEADER = 2 << 20  # that many bytes become 100 MB at worst; sound ones have 0.1 MB at most
MAX_NAME = 512
MAX_TENSORS = 100_000
BYTES_OF = {"BF16": 2, "F16": 2, "F32": 4}  # the dtypes that are read, and bytes an element


@dataclass(frozen=True)
class Tensor:
    """A named tensor that lies in a shard, unread."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: Shard
    offset: int

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return BYTES_OF[self.dtype]

    @property
    def size(self) -> int:
        """Elements in all."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return self.size * self.itemsize

    def read(self, first: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from element `first` on; any thread may call."""
        self.shard.read(self.offset + first * self.itemsize, buffer)

    def expect(self, first: int, count: int) -> None:
        """Tell the system that these elements will be read soon."""
        self.shard.expect(self.offset + first * self.itemsize, count * self.itemsize)


class Shard:
    """A safetensors file whose header has been found sound, open for reading.

    One that is only `announced` is known by its size and header, and can be read once it `arrives`.
    """

    def __init__(self, path: Path, announced: tuple[int, bytes] | None = None) -> None:
        self.path = path
        self.name = path.name
        self.sha256: str | None = None  # expected of the whole file, where someone has said it
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        if announced is not None:
            self.size, head = announced
            self.tensors = self._read_header(head[8:])
            return
        self._open()
        try:
            self.size = os.fstat(self._opened().fileno()).st_size
            self.tensors = self._read_header(self._take(8, self._header_length()))
        except BaseException:
            self.close()
            raise

    def arrive(self, path: Path) -> None:
        """The file is there now; it must be the one that was announced."""
        self.path = path
        self._open()
        found = hashlib.sha256(self._take(8, self._header_length())).hexdigest()
        if os.fstat(self._opened().fileno()).st_size != self.size or found != self.header_sha256:
            raise BadCheckpoint(f"{path} is not the file that was announced")

    def state(self) -> tuple[str, int, int | str, str]:
        """What changes when the file does: name, size, time or hash, and its header's hash."""
        mark = os.fstat(self._file.fileno()).st_mtime_ns if self._file else self.sha256 or ""
        return self.name, self.size, mark, self.header_sha256

    def identity(self) -> tuple[str | int, ...]:
        """What tells this file from any other: `state`, and where the system has it, since when.

        Also a copy that was given the same time is another file.
        """
        if self._file is None:
            return self.state()
        found = os.fstat(self._file.fileno())
        return *self.state(), found.st_ino, found.st_ctime_ns

    def close(self) -> None:
        """Close the file; its tensors cannot be read any more."""
        if self._file is not None:
            self._file.close()

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. One reader at a time: the disk likes it so."""
        with self._lock:
            try:
                file = self._opened()
                file.seek(offset)
                self._fill(buffer, file)
            except OSError as error:
                raise unreadable(self.path, error) from error

    def span(self, begin: int, end: int) -> bytearray:
        """The bytes of a span of the file; disturbs no other reader."""
        try:
            with self.path.open("rb", buffering=0) as file:
                if not os.path.sameopenfile(file.fileno(), self._opened().fileno()):
                    raise BadCheckpoint(f"{self.path} was replaced while it was read")
                data = bytearray(end - begin)
                file.seek(begin)
                self._fill(memoryview(data), file)
                return data
        except OSError as error:
            raise unreadable(self.path, error) from error

    def expect(self, offset: int, length: int) -> None:
        """Start reading ahead, where the system knows how."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # a hint, no more
                os.posix_fadvise(self._opened().fileno(), offset, length, os.POSIX_FADV_WILLNEED)

    def _fill(self, buffer: memoryview, file: FileIO) -> None:
        while buffer:
            count = file.readinto(buffer)
            if not count:
                raise BadCheckpoint(f"{self.path} ends too early; is the download complete?")
            buffer = buffer[count:]

    def _open(self) -> None:
        if not self.path.is_file():
            raise BadCheckpoint(f"shard {self.path} is missing; is the download complete?")
        try:
            self._file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _opened(self) -> FileIO:
        if self._file is None:
            raise ValueError(f"{self.path} is not there yet")
        return self._file

    def _header_length(self) -> int:
        return header_length(self._take(0, min(8, self.size)), self.size, self.path)

    def _read_header(self, data: bytes) -> dict[str, Tensor]:
        self.header_sha256 = hashlib.sha256(data).hexdigest()
        header = parse_json(data, f"header of {self.path}")
        return self._check(header, 8 + len(data), self.size)

    def _take(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self.read(offset, memoryview(data))
        return bytes(data)

    def _check(self, header: JsonObject, start: int, total: int) -> dict[str, Tensor]:
        if len(header) > MAX_TENSORS:
            raise BadCheckpoint(
                f"{header.where} lists {len(header):,} tensors, over {MAX_TENSORS:,}"
            )
        if "__metadata__" in header:
            metadata = header.object("__metadata__")
            for name in metadata:
                metadata.text(name)
        spans = [self._span(header, name, start) for name in header if name != "__metadata__"]
        spans.sort(key=lambda span: (span[0].offset, span[1]))
        reached = start
        for tensor, end in spans:
            if tensor.offset != reached:
                what = "overlaps another" if tensor.offset < reached else "leaves a hole before it"
                raise BadCheckpoint(
                    f"{self.path}: tensor {show(tensor.name)} {what}: it begins at byte"
                    f" {tensor.offset - start:,} of the data, expected {reached - start:,}"
                )
            reached = end
        if reached != total:
            word = "truncated" if reached > total else "longer than its header says"
            raise BadCheckpoint(
                f"{self.path} is {word}: {total:,} bytes, its header describes {reached:,};"
                " is the download complete?"
            )
        return {tensor.name: tensor for tensor, _ in spans}

    def _span(self, header: JsonObject, name: str, start: int) -> tuple[Tensor, int]:
        """A tensor and the byte where it ends."""
        if not 0 < len(name) <= MAX_NAME:
            raise BadCheckpoint(f"{header.where}: {show(name)} is no tensor name")
        entry = header.object(name)
        dtype = entry.text("dtype")
        if dtype not in BYTES_OF:
            raise UnsupportedCheckpoint(
                f"{self.path}: tensor {show(name)} is stored as {show(dtype)}; only BF16, F16 and"
                " F32 are read: use the unquantised checkpoint"
            )
        shape = tuple(_sizes(entry, "shape"))
        begin, end = (*_sizes(entry, "data_offsets"), -1, -1)[:2]
        tensor = Tensor(name, dtype, shape, self, start + begin)
        if len(entry.items("data_offsets")) != 2 or end - begin != tensor.nbytes:
            raise BadCheckpoint(
                f"{self.path}: tensor {show(name)} of shape {list(shape)} in {dtype} takes"
                f" {tensor.nbytes:,} bytes, its offsets are {show(entry.raw('data_offsets'))}"
            )
        return tensor, start + end


def header_length(start: bytes, total: int, path: Path) -> int:
    """What the first eight bytes announce, as far as a file of `total` bytes can hold it."""
    if len(start) < 8:
        raise BadCheckpoint(f"{path} has {total} bytes; a safetensors file has 8 or more")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER:
        raise BadCheckpoint(
            f"{path} announces a header of {length:,} bytes; at most {MAX_HEADER:,} are read,"
            " far more than Gemma-2 needs; is it a safetensors file?"
        )
    if 8 + length > total:
        raise BadCheckpoint(
            f"{path} is truncated: {total:,} bytes, of which the header alone should"
            f" take {8 + length:,}"
        )
    return length


def _sizes(entry: JsonObject, key: str) -> list[int]:
    values = entry.items(key)
    if len(values) > 8 or any(type(v) is not int or not 0 <= v < 1 << 48 for v in values):
        entry.refuse(key, "a short list of whole numbers")
    return values
