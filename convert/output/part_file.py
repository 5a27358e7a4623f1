"""The part file: the output while it is written, under a temporary name.

    | head | tensor | zeros to 32 | tensor | ...      every tensor at its final offset

It can be written, read again and hashed; failures are raised as OSError.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edgesppo.system.fs import write_all
from edgesppo.system.signals import deferred_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from edgesppo.system.fs import Bytes, FileSystem
    from edgesppo_convert.gguf_format import FilePlan, TensorSlot

BLOCK = 4 << 20  # bytes read at a time
AHEAD = 4  # blocks that may wait to be hashed by the second thread


class PartFile:
    """The part file of one output; `open` or `create` it, and `close` it in the end."""

    def __init__(self, path: Path, files: FileSystem) -> None:
        self.path = path
        self._files = files
        self._descriptor: int | None = None

    def open(self) -> bool:
        """Open an existing part file; False if there is none, or if it has a second hard link."""
        try:
            self._descriptor = self._files.open(self.path)
        except FileNotFoundError:
            return False
        # The second link may be a finished output, which writing would change.
        return os.fstat(self._descriptor).st_nlink == 1

    def create(self) -> None:
        """Create a new, empty part file; FileExistsError if there is one."""
        self._descriptor = self._files.create(self.path)

    def write(self, data: Bytes, at: int) -> None:
        """Write all of `data` at this offset."""
        write_all(self._files, self._open(), data, at)

    def resize_and_sync(self, size: int) -> None:
        """Truncate or extend the file to `size` bytes, and flush it to the disk."""
        self._files.truncate(self._open(), size)
        self.sync()

    def sync(self) -> None:
        """Flush everything written so far to the disk."""
        self._files.sync(self._open())

    def close(self) -> None:
        """Close the file without removing it."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._files.close(descriptor)

    def discard(self) -> None:
        """Close the file and remove it."""
        self.close()
        self._files.unlink(self.path)

    def digest(self, slot: TensorSlot, on_block: Callable[[int], None]) -> str:
        """The sha256 of a tensor's data; `on_block` is called with the length of every block."""
        hasher = hashlib.sha256()
        for data in self._blocks(slot.start, slot.end):
            hasher.update(data)
            on_block(len(data))
        return hasher.hexdigest()

    def read_back(
        self, plan: FilePlan, digests: Mapping[str, str], on_block: Callable[[str, int], None]
    ) -> tuple[str, str | None]:
        """Read the whole file once: its sha256, and the name of the first wrong part, if any.

        `on_block` is called for every block, with the name of its part and its length in bytes.
        """
        whole = hashlib.sha256()
        ahead: deque[Future[None]] = deque()
        with (
            deferred_interrupts() as check_interrupt,
            ThreadPoolExecutor(1, "edgesppo-hash") as pool,
        ):
            for name, start, end, expected in _spans(plan, digests):
                hasher = hashlib.sha256()
                for data in self._blocks(start, end):
                    ahead.append(pool.submit(whole.update, data))
                    hasher.update(data)
                    if len(ahead) > AHEAD:
                        ahead.popleft().result()
                    on_block(name, len(data))
                    check_interrupt()
                if hasher.hexdigest() != expected:
                    return whole.hexdigest(), name
        for update in ahead:
            update.result()
        beyond = self._files.read(self._open(), 1, plan.size)
        return whole.hexdigest(), "its length" if beyond else None

    def _blocks(self, at: int, end: int) -> Iterator[bytes]:
        while at < end:
            data = self._files.read(self._open(), min(BLOCK, end - at), at)
            if not data:
                return
            yield data
            at += len(data)

    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"{self.path} is not open")
        return self._descriptor


def _spans(plan: FilePlan, digests: Mapping[str, str]) -> Iterator[tuple[str, int, int, str]]:
    """Every part of the file, in order: its name, start, end, and sha256."""
    yield "its head", 0, len(plan.head), hashlib.sha256(plan.head).hexdigest()
    for slot in plan.slots:
        name = slot.tensor.name
        yield f"tensor {name}", slot.start, slot.end, digests[name]
        zeros = bytes(slot.padded_end - slot.end)
        if zeros:
            expected = hashlib.sha256(zeros).hexdigest()
            yield f"the padding after tensor {name}", slot.end, slot.padded_end, expected
