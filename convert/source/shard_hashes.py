"""Hash the shards while they are converted, and check that they do not change meanwhile.

A thread hashes each shard from front to back beside the conversion. It is handed the bytes that are
converted, and reads from the file only what lies between them, or what it was too slow to take. It
never runs ahead of the conversion, so that every byte is read from the disk once.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from edgesppo.system.fs import Bytes
    from edgesppo_convert.source.safetensors import Shard

    Position = tuple[int, int]  # index of a shard, offset of a byte in it

BLOCK = 1 << 20  # bytes read from a file at a time
MAX_QUEUED = 16  # spans that may wait to be hashed
WAIT_S = 0.1  # between two calls of `on_wait`


class ShardHashes:
    """The sha256 of every shard of a checkpoint, by name; made before the first weight is read.

    Shards that are `downloaded` one by one were verified against the hub's sha256 already; they are
    hashed here only if the hub gave none.
    """

    def __init__(self, shards: Collection[Shard], *, downloaded: bool) -> None:
        known = shards if downloaded else ()
        self.digests = {shard.name: shard.sha256 for shard in known if shard.sha256 is not None}
        self.unverified = [shard for shard in shards if shard.name not in self.digests]
        self._states = {} if downloaded else {shard.name: shard.state() for shard in shards}

    def watch(
        self, shards: Iterable[Shard], on_wait: Callable[[int, int], None] | None = None
    ) -> Hashing:
        """Start to hash these shards, while they can be read; a context manager.

        `on_wait` is called at its end, while it waits, with the bytes done and their total.
        """
        shards = sorted(shards, key=lambda shard: shard.name)
        for shard in shards:
            self._states.setdefault(shard.name, shard.state())
        return Hashing(self, shards, on_wait or (lambda *_: None))

    def check(self, shards: Iterable[Shard]) -> None:
        """Refuse shards that have changed since they were opened, or whose known sha256 differs."""
        for shard in shards:
            if shard.state() != self._states[shard.name]:
                raise BadCheckpoint(
                    f"the checkpoint has changed: {shard.path} was written to while it was read;"
                    " run the same command again"
                )
            digest = self.digests[shard.name]
            if shard.sha256 not in (None, digest):
                raise BadCheckpoint(
                    f"{shard.path} is damaged: its sha256 is {digest}, but its name in the Hugging"
                    f" Face cache says {shard.sha256}; delete it and download it again"
                )


class Hashing:
    """Hashes some shards while they are read; leaving its context waits until all are hashed.

    The thread is a daemon: a Ctrl-C may come at a moment where nothing is left to stop the thread,
    and the interpreter would wait forever for one that is not.
    """

    def __init__(
        self, hashes: ShardHashes, shards: list[Shard], on_wait: Callable[[int, int], None]
    ) -> None:
        self._hashes = hashes
        self._shards = shards
        self._on_wait = on_wait
        self._done = 0  # bytes
        self._total = sum(shard.size for shard in shards if shard.name not in hashes.digests)
        self._indices = {shard.name: index for index, shard in enumerate(shards)}
        self._changed = threading.Condition()
        self._reached: Position = (0, 0)  # the conversion has read everything before it
        self._queue: deque[tuple[Position, Bytes]] = deque()  # in order, all before `_reached`
        self._stopped = False
        self._hashing: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="edgesppo-sha256", daemon=True)

    def __enter__(self) -> Hashing:
        self._thread.start()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if error is None:
                self._advance((len(self._shards), 0))
                while wait([self._hashing], WAIT_S).not_done:
                    self._on_wait(self._done, self._total)
                self._hashing.result()
                self._hashes.check(self._shards)
        finally:
            self._stopped = True
            self._advance(self._reached)
            self._thread.join()

    def read(self, shard: Shard, begin: int, data: Bytes) -> None:
        """Take the bytes that were read at `begin` of a shard; to be called in order."""
        index = self._indices[shard.name]
        self._advance((index, begin + len(data)), ((index, begin), data))
        if self._hashing.done():
            self._hashing.result()  # raises if it ended early because of an error

    def _advance(self, reached: Position, span: tuple[Position, Bytes] | None = None) -> None:
        with self._changed:
            self._reached = reached
            if span is not None and len(self._queue) < MAX_QUEUED:
                self._queue.append(span)
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._hash()
        except BaseException as error:
            self._hashing.set_exception(error)
        else:
            self._hashing.set_result(None)

    def _hash(self) -> None:
        for index, shard in enumerate(self._shards):
            if shard.name in self._hashes.digests:
                continue
            hasher, offset = hashlib.sha256(), 0
            while offset < shard.size:
                data = self._next_bytes((index, offset), shard)
                if data is None:
                    return
                hasher.update(data)
                offset += len(data)
                self._done += len(data)
            self._hashes.digests[shard.name] = hasher.hexdigest()

    def _next_bytes(self, position: Position, shard: Shard) -> Bytes | None:
        """Wait until a position was reached; the bytes from there on, or None once stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._reached > position)
            if self._stopped:
                return None
            while self._queue and self._queue[0][0] < position:
                self._queue.popleft()
            if self._queue and self._queue[0][0] == position:
                return self._queue.popleft()[1]
            index, end = self._queue[0][0] if self._queue else self._reached
        _, begin = position
        end = end if index == position[0] else shard.size
        return shard.read_span(begin, min(begin + BLOCK, end))
