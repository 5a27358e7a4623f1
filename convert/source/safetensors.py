"""Read one safetensors file: check its header, and read parts of its tensors into buffers.

    0        8            8+N                                   end
    | N: u64 | JSON, N B  | tensor bytes, row-major, no gaps     |

The rules are the format's own (https://github.com/huggingface/safetensors#format): no key twice,
only strings as metadata, and tensors that follow each other without gap or overlap and cover the
data exactly. One limit is stricter: the format allows headers of 100,000,000 bytes, but a real one
takes about a hundred bytes a tensor, and a hostile one of that length would take 4 GB of memory.
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
from edgesppo.system.content import HEAD
from edgesppo_convert.source.json_reader import (
    JsonObject,
    check_content,
    kind_of,
    parse_json,
    show,
    unreadable,
)

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

MAX_HEADER = 2 << 20  # bytes; parsed, at most 100 MB of memory. Real ones have under 0.1 MB
MAX_NAME = 512
MAX_TENSORS = 100_000
SAMPLES, SAMPLE_BYTES = 16, 4096
BYTES_OF = {"BF16": 2, "F16": 2, "F32": 4}  # supported dtype -> bytes per element


@dataclass(frozen=True)
class Tensor:
    """A tensor of a shard: its name, type, shape and place; the data stays on the disk."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: Shard
    offset: int  # of its first byte in the file

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return BYTES_OF[self.dtype]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all its elements."""
        return self.size * self.itemsize

    def read(self, first: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from element `first` on; thread-safe."""
        self.shard.read(self.offset + first * self.itemsize, buffer)

    def prefetch(self, first: int, count: int) -> None:
        """Ask the system to read `count` elements ahead, from element `first` on."""
        self.shard.prefetch(self.offset + first * self.itemsize, count * self.itemsize)


class Shard:
    """A safetensors file whose header has been checked, open for reading.

    A shard on the hub is described by `remote`, its size and the bytes of its header (with their
    length in front). Its tensors are known at once; they can be read after `attach`.
    """

    def __init__(self, path: Path, remote: tuple[int, bytes] | None = None) -> None:
        self.path = path
        self.name = path.name
        self.sha256: str | None = None  # expected of the whole file, if known
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        if remote is not None:
            self.size, head = remote
            self.tensors = self._read_header(head[8:])
            return
        self._open()
        try:
            self.size = os.fstat(self._attached_file().fileno()).st_size
            self.tensors = self._read_header(self._read_bytes(8, self._header_length()))
        except BaseException:
            self.close()
            raise

    def attach(self, path: Path) -> None:
        """Open the downloaded file; BadCheckpoint if its size or header is not as in `remote`."""
        self.path = path
        self._open()
        digest = hashlib.sha256(self._read_bytes(8, self._header_length())).hexdigest()
        if (
            os.fstat(self._attached_file().fileno()).st_size != self.size
            or digest != self.header_sha256
        ):
            raise BadCheckpoint(
                f"{path} is not the file that the hub described: its size or header differs"
            )

    def state(self) -> tuple[str, int, int | str, str]:
        """Values that change when the file does: name, size, mtime or sha256, the header's hash."""
        mark = os.fstat(self._file.fileno()).st_mtime_ns if self._file else self.sha256 or ""
        return self.name, self.size, mark, self.header_sha256

    def identity(self) -> tuple[str | int, ...]:
        """Values that tell this file from any other: `state`, the inode and its change time.

        So a copy that was given the same mtime counts as another file.
        """
        if self._file is None:
            return self.state()
        status = os.fstat(self._file.fileno())
        return *self.state(), status.st_ino, status.st_ctime_ns

    def sample(self) -> str:
        """A hash of parts all over the file, in which other weights differ; empty unless open.

        Unlike the inode it stays the same when a disk is mounted anew. With `state`, which has the
        mtime, it misses only an edit between the parts that kept the mtime.
        """
        if self._file is None:
            return ""
        hasher, last = hashlib.sha256(), max(0, self.size - SAMPLE_BYTES)
        for n in range(SAMPLES):
            begin = last * n // (SAMPLES - 1)
            hasher.update(self._read_bytes(begin, min(SAMPLE_BYTES, self.size - begin)))
        return hasher.hexdigest()

    def close(self) -> None:
        """Close the file; its tensors can no longer be read."""
        if self._file is not None:
            self._file.close()

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on; one reader at a time, so that disks read in sequence."""
        with self._lock:
            try:
                file = self._attached_file()
                file.seek(offset)
                self._fill(buffer, file)
            except OSError as error:
                raise unreadable(self.path, error) from error

    def read_span(self, begin: int, end: int) -> bytearray:
        """Read bytes [begin, end) of the file, without waiting for other readers."""
        try:
            with self.path.open("rb", buffering=0) as file:
                if not os.path.sameopenfile(file.fileno(), self._attached_file().fileno()):
                    raise BadCheckpoint(f"{self.path} was replaced while it was read")
                data = bytearray(end - begin)
                file.seek(begin)
                self._fill(memoryview(data), file)
                return data
        except OSError as error:
            raise unreadable(self.path, error) from error

    def prefetch(self, offset: int, length: int) -> None:
        """Ask the system to read these bytes ahead, where it has posix_fadvise."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # a hint, no more
                os.posix_fadvise(
                    self._attached_file().fileno(), offset, length, os.POSIX_FADV_WILLNEED
                )

    def _fill(self, buffer: memoryview, file: FileIO) -> None:
        while buffer:
            count = file.readinto(buffer)
            if not count:
                raise BadCheckpoint(f"{self.path} is truncated; is the download complete?")
            buffer = buffer[count:]

    def _open(self) -> None:
        if not self.path.is_file():
            if self.path.exists():
                raise BadCheckpoint(f"{self.path} is {kind_of(self.path)}; expected a file")
            raise BadCheckpoint(f"shard {self.path} is missing; is the download complete?")
        try:
            self._file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _attached_file(self) -> FileIO:
        if self._file is None:
            raise ValueError(f"{self.path} is not attached yet")
        return self._file

    def _header_length(self) -> int:
        return header_length(self._read_bytes(0, min(HEAD, self.size)), self.size, self.path)

    def _read_header(self, data: bytes) -> dict[str, Tensor]:
        self.header_sha256 = hashlib.sha256(data).hexdigest()
        header = parse_json(data, f"header of {self.path}")
        return self._check_header(header, 8 + len(data), self.size)

    def _read_bytes(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self.read(offset, memoryview(data))
        return bytes(data)

    def _check_header(self, header: JsonObject, start: int, total: int) -> dict[str, Tensor]:
        if len(header) > MAX_TENSORS:
            raise BadCheckpoint(
                f"{header.where} lists {len(header):,} tensors; expected at most {MAX_TENSORS:,}"
            )
        if "__metadata__" in header:
            metadata = header.object("__metadata__")
            for name in metadata:
                metadata.text(name)
        entries = [self._entry(header, name, start) for name in header if name != "__metadata__"]
        entries.sort(key=lambda entry: (entry[0].offset, entry[1]))
        position = start
        for tensor, end in entries:
            if tensor.offset != position:
                fault = "overlaps another" if tensor.offset < position else "leaves a gap before it"
                raise BadCheckpoint(
                    f"{self.path}: tensor {show(tensor.name)} {fault}: it begins at byte"
                    f" {tensor.offset - start:,} of the data; expected {position - start:,}"
                )
            position = end
        if position != total:
            fault = "truncated" if position > total else "longer than its header says"
            raise BadCheckpoint(
                f"{self.path} is {fault}: it has {total:,} bytes, its header describes"
                f" {position:,}; is the download complete?"
            )
        return {tensor.name: tensor for tensor, _ in entries}

    def _entry(self, header: JsonObject, name: str, start: int) -> tuple[Tensor, int]:
        """Check the header's entry for a tensor; the tensor, and its end as a file offset."""
        if not 0 < len(name) <= MAX_NAME:
            raise BadCheckpoint(
                f"{header.where}: {show(name)} is not a tensor name; expected 1 to {MAX_NAME}"
                " characters"
            )
        entry = header.object(name)
        dtype = entry.text("dtype")
        if dtype not in BYTES_OF:
            raise UnsupportedCheckpoint(
                f"{self.path}: tensor {show(name)} is stored as {show(dtype)}; only BF16, F16 and"
                f" F32 can be read: {_advice(dtype)}"
            )
        shape = tuple(_sizes(entry, "shape"))
        begin, end = (*_sizes(entry, "data_offsets"), -1, -1)[:2]
        tensor = Tensor(name, dtype, shape, self, start + begin)
        if len(entry.items("data_offsets")) != 2 or end - begin != tensor.nbytes:
            raise BadCheckpoint(
                f"{self.path}: tensor {show(name)} of shape {list(shape)} in {dtype} takes"
                f" {tensor.nbytes:,} bytes, but its offsets are {show(entry.raw('data_offsets'))}"
            )
        return tensor, start + end


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


def _sizes(entry: JsonObject, key: str) -> list[int]:
    values = entry.items(key)
    if len(values) > 8 or any(type(v) is not int or not 0 <= v < 1 << 48 for v in values):
        entry.refuse(key, "a list of at most 8 whole numbers, none negative")
    return values
