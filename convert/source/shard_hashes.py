"""Owns the certainty about the shards: their sha256, from their own bytes, and that they stay put.

A thread hashes each shard from front to back beside the conversion: the very bytes that are
converted, as they are handed to it, and from the file only what lies between them, or what it had
no time for. It goes no further than the conversion has come, so the disk is read once. Knows
nothing of tensors.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from edgesppo.system.fs import Bytes
    from edgesppo_convert.source.safetensors import Shard

    Point = tuple[int, int]  # the place of a shard, and a byte of it

BLOCK = 1 << 20  # bytes at a time that are read from a file
HANDED = 16  # spans that may wait to be hashed


class ShardHashes:
    """What is known of the shards of one checkpoint; made before the first weight is read.

    Those that are `fetched` come one by one, held against the sha256 that the hub has told: they
    are hashed again only where it has told none.
    """

    def __init__(self, shards: Collection[Shard], *, fetched: bool) -> None:
        known = shards if fetched else ()
        self.digests = {shard.name: shard.sha256 for shard in known if shard.sha256 is not None}
        self.unproven = [shard for shard in shards if shard.name not in self.digests]
        self._states = {} if fetched else {shard.name: shard.state() for shard in shards}

    def watch(self, shards: Iterable[Shard]) -> Hashing:
        """See these shards through, while they are there to be read."""
        shards = sorted(shards, key=lambda shard: shard.name)
        for shard in shards:
            self._states.setdefault(shard.name, shard.state())
        return Hashing(self, shards)

    def check(self, shards: Iterable[Shard]) -> None:
        """Refuse shards that are no longer what they were, or not what someone has said."""
        for shard in shards:
            if shard.state() != self._states[shard.name]:
                raise BadCheckpoint(
                    f"the checkpoint changed meanwhile: {shard.path} was written to while it was"
                    " read; give the same command again"
                )
            found = self.digests[shard.name]
            if shard.sha256 not in (None, found):
                raise BadCheckpoint(
                    f"{shard.path} has the sha256 {found}, but its name in the Hugging Face cache"
                    f" says {shard.sha256}; it is damaged: delete it and download it again"
                )


class Hashing:
    """Some shards while they are read; a context manager, left when their hashes are known.

    Its thread is a daemon: a Ctrl-C may come where nobody is left to stop the thread, and for any
    other kind the interpreter would wait without end.
    """

    def __init__(self, witness: ShardHashes, shards: list[Shard]) -> None:
        self._witness = witness
        self._shards = shards
        self._places = {shard.name: place for place, shard in enumerate(shards)}
        self._came = threading.Condition()
        self._reached: Point = (0, 0)  # everything before it has been read
        self._handed: deque[tuple[Point, Bytes]] = deque()  # in order, all of it before `_reached`
        self._stopped = False
        self._hashing: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="edgesppo-sha256", daemon=True)

    def __enter__(self) -> Hashing:
        self._thread.start()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if error is None:
                self._go_on((len(self._shards), 0))
                self._hashing.result()
                self._witness.check(self._shards)
        finally:
            self._stopped = True
            self._go_on(self._reached)
            self._thread.join()

    def read(self, shard: Shard, begin: int, data: Bytes) -> None:
        """Take this span of a shard; of what comes before it, nothing more will be handed over."""
        place = self._places[shard.name]
        self._go_on((place, begin + len(data)), ((place, begin), data))
        if self._hashing.done():
            self._hashing.result()  # that it is done so early may be for an error

    def _go_on(self, reached: Point, handed: tuple[Point, Bytes] | None = None) -> None:
        with self._came:
            self._reached = reached
            if handed is not None and len(self._handed) < HANDED:
                self._handed.append(handed)
            self._came.notify()

    def _run(self) -> None:
        try:
            self._hash()
        except BaseException as error:
            self._hashing.set_exception(error)
        else:
            self._hashing.set_result(None)

    def _hash(self) -> None:
        for place, shard in enumerate(self._shards):
            if shard.name in self._witness.digests:
                continue
            found, at = hashlib.sha256(), 0
            while at < shard.size:
                data = self._from((place, at), shard)
                if data is None:
                    return
                found.update(data)
                at += len(data)
            self._witness.digests[shard.name] = found.hexdigest()

    def _from(self, point: Point, shard: Shard) -> Bytes | None:
        """The bytes from there on, as many as can be had; None when there will be no more."""
        with self._came:
            self._came.wait_for(lambda: self._stopped or self._reached > point)
            if self._stopped:
                return None
            while self._handed and self._handed[0][0] < point:
                self._handed.popleft()
            if self._handed and self._handed[0][0] == point:
                return self._handed.popleft()[1]
            place, end = self._handed[0][0] if self._handed else self._reached
        _, begin = point
        return shard.span(begin, min(begin + BLOCK, end if place == point[0] else shard.size))
