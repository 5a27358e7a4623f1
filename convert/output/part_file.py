"""Owns the file on its way, under a name of its own: opened, written, read again and hashed.

    | head | tensor | zeros to 32 | tensor | ...      every tensor at its final place

Knows nothing of journals, and explains no failure: what goes wrong is an OSError.
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
    from edgesppo_convert.gguf_format import FilePlan, Place

BLOCK = 4 << 20  # read at a time
AHEAD = 4  # blocks of which one thread may be ahead of the other


class Part:
    """The part file of one output; open between `open` or `create` and `close`."""

    def __init__(self, path: Path, files: FileSystem) -> None:
        self.path = path
        self._files = files
        self._descriptor: int | None = None

    def open(self) -> bool:
        """Open the one that is there; False where there is none, or it has a second name."""
        try:
            self._descriptor = self._files.open(self.path)
        except FileNotFoundError:
            return False
        # Writing to it would change what stands under the other name: a finished output.
        return os.fstat(self._descriptor).st_nlink == 1

    def create(self) -> None:
        """Begin a new one, where there is none."""
        self._descriptor = self._files.create(self.path)

    def write(self, data: Bytes, at: int) -> None:
        """Write all of the data there."""
        write_all(self._files, self._open(), data, at)

    def settle(self, size: int) -> None:
        """Make it exactly so long, and wait until all of it is on the disk."""
        self._files.truncate(self._open(), size)
        self.sync()

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        self._files.sync(self._open())

    def close(self) -> None:
        """Close the file; it stays."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._files.close(descriptor)

    def discard(self) -> None:
        """Close it, and remove what has its name."""
        self.close()
        self._files.unlink(self.path)

    def digest(self, place: Place, heard: Callable[[int], None]) -> str:
        """The sha256 of a tensor's data; `heard` is told of every block's length."""
        found = hashlib.sha256()
        for data in self._blocks(place.at, place.end):
            found.update(data)
            heard(len(data))
        return found.hexdigest()

    def read_back(
        self, plan: FilePlan, digests: Mapping[str, str], heard: Callable[[str, int], None]
    ) -> tuple[str, str | None]:
        """The sha256 of the whole file, read once, and what of it is not as it should be, if any.

        `heard` is told of every block: where it belongs, and its length.
        """
        whole = hashlib.sha256()
        ahead: deque[Future[None]] = deque()
        with deferred_interrupts() as look, ThreadPoolExecutor(1, "edgesppo-hash") as pool:
            for what, at, end, expected in _spans(plan, digests):
                found = hashlib.sha256()
                for data in self._blocks(at, end):
                    ahead.append(pool.submit(whole.update, data))
                    found.update(data)
                    if len(ahead) > AHEAD:
                        ahead.popleft().result()
                    heard(what, len(data))
                    look()
                if found.hexdigest() != expected:
                    return whole.hexdigest(), what
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
    """Every span of the file, in order: what it is, where, and its sha256."""
    yield "its head", 0, len(plan.head), hashlib.sha256(plan.head).hexdigest()
    for place in plan.places:
        name = place.tensor.name
        yield f"tensor {name}", place.at, place.end, digests[name]
        zeros = bytes(place.next - place.end)
        if zeros:
            expected = hashlib.sha256(zeros).hexdigest()
            yield f"what follows tensor {name}", place.end, place.next, expected
