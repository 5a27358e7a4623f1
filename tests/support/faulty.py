"""Fault injection for file operations: errors, short writes and reads, power cuts."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo_convert import ConvertResult

OPERATIONS = tuple(name for name in vars(FileSystem) if not name.startswith("_"))


def convert_on(files: FileSystem, *args: Any, **options: Any) -> ConvertResult:
    """Convert a checkpoint with these file operations."""
    from edgesppo_convert import pipeline

    with mock.patch.object(pipeline, "FileSystem", return_value=files):
        return pipeline.convert(*args, **options)


class Counting(FileSystem):
    """Real file operations that record their names in `done` and call `before` first.

    Syncing is skipped to save time: it only matters when the power fails.
    """

    def __init__(self, before: Callable[[int, str], None] | None = None) -> None:
        self.done: list[str] = []
        self._before = before or (lambda *_: None)
        self._one_at_a_time = threading.Lock()


def _counted(name: str) -> Callable[..., Any]:
    real = getattr(FileSystem, name) if name not in ("sync", "sync_folder") else lambda *_: None

    def operation(self: Counting, *args: Any) -> Any:
        with self._one_at_a_time:
            self.done.append(name)
            number = len(self.done)
        if name == "close":
            real(self, *args)  # a close that fails still closes
            return self._before(number, name)
        self._before(number, name)
        return real(self, *args)

    return operation


for _name in OPERATIONS:
    setattr(Counting, _name, _counted(_name))


class Faulty(Counting):
    """File operations of which number `fail_at` fails, by default with EIO."""

    def __init__(self, fail_at: int, error: BaseException | int = errno.EIO) -> None:
        super().__init__(self._fail)
        self._fail_at = fail_at
        self._error = OSError(error, os.strerror(error)) if isinstance(error, int) else error

    def _fail(self, number: int, _name: str) -> None:
        if number == self._fail_at:
            raise self._error


class Short(FileSystem):
    """Reads and writes at most 1,000 bytes at a time, as operating systems may."""

    def write(self, descriptor: int, data: Any, offset: int) -> int:
        return super().write(descriptor, data[:1000], offset)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        return super().read(descriptor, min(length, 1000), offset)


class PowerCut(BaseException):
    """The power has failed: nothing reaches the disk any more."""


class Volatile(Counting):
    """A machine whose power fails at operation `cut_at`: data not synced by then is lost.

    Names, lengths and the journal's lines reach the disk at once: the worst order that a system
    may choose. `claimed` counts the tensors that the journal says are safe.
    """

    def __init__(self, cut_at: int) -> None:
        super().__init__(self._step)
        self.claimed = 0
        self._cut_at = cut_at
        self._is_cut = False
        self._pages: dict[int, bytearray] = {}  # of the part file, as this process sees it

    def _step(self, number: int, name: str) -> None:
        self._is_cut |= number >= self._cut_at
        if self._is_cut and name != "close":
            raise PowerCut

    def create(self, path: Any) -> int:
        descriptor = super().create(path)
        self._pages[descriptor] = bytearray()
        return descriptor

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        data = super().read(descriptor, length, offset)
        pages = self._pages.get(descriptor)
        return data if pages is None else bytes(pages[offset : offset + length])

    def write(self, descriptor: int, data: Any, offset: int) -> int:
        pages = self._pages.get(descriptor)
        if pages is None:
            for held in self._pages.items():
                assert b'"tensor"' not in bytes(data) or self._is_synced(*held), "claimed too early"
            count = super().write(descriptor, data, offset)
            self.claimed += bytes(data).count(b'"tensor"')
            return count
        super().write(descriptor, b"", offset)  # recorded as an operation, but nothing is written
        pages.extend(bytes(max(0, offset + len(data) - len(pages))))
        pages[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        if descriptor in self._pages:
            pages = self._pages[descriptor]
            pages.extend(bytes(max(0, size - len(pages))))
            del pages[size:]

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        if descriptor in self._pages:
            FileSystem.write(self, descriptor, self._pages[descriptor], 0)

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._pages.pop(descriptor, None)

    def _is_synced(self, descriptor: int, pages: bytearray) -> bool:
        return os.pread(descriptor, len(pages) + 1, 0) == pages
