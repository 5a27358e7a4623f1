"""A safetensors file: its tensors, and how parts of them are read into buffers."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint
from edgesppo.system.content import HEAD
from edgesppo_convert.source.json_reader import kind_of, unreadable
from edgesppo_convert.source.safetensors_header import BYTES_OF, header_length, read_entries

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

SAMPLES, SAMPLE_BYTES = 16, 4096


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
        entries = read_entries(data, self.size, self.path)
        return {
            one.name: Tensor(one.name, one.dtype, one.shape, self, one.begin) for one in entries
        }

    def _read_bytes(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self.read(offset, memoryview(data))
        return bytes(data)
