"""Owns the certainty about the shards: their sha256, from their own bytes, and that they stay put.

A thread hashes each shard from front to back beside the conversion, and no further than that has
come: so the disk is read once, what is hashed being still in the system's memory. Knows nothing
of tensors.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from concurrent.futures import Future

    from edgesppo_convert.safetensors import Shard


class Witness:
    """What is known of the shards of one checkpoint; made before the first weight is read.

    Those that are `fetched` come one by one, held against the sha256 that the hub has told: they
    are hashed again only where it has told none.
    """

    def __init__(self, shards: Collection[Shard], *, fetched: bool) -> None:
        known = shards if fetched else ()
        self.digests = {shard.name: shard.sha256 for shard in known if shard.sha256 is not None}
        self.unproven = [shard for shard in shards if shard.name not in self.digests]
        self._states = {} if fetched else {shard.name: shard.state() for shard in shards}

    def watch(self, shards: Iterable[Shard]) -> Watch:
        """See these shards through, while they are there to be read."""
        shards = sorted(shards, key=lambda shard: shard.name)
        for shard in shards:
            self._states.setdefault(shard.name, shard.state())
        return Watch(self, shards)

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


class Watch:
    """Some shards while they are read; a context manager, left when their hashes are known."""

    def __init__(self, witness: Witness, shards: list[Shard]) -> None:
        self._witness = witness
        self._shards = shards
        self._places = {shard.name: place for place, shard in enumerate(shards)}
        self._came = threading.Condition()
        self._reached = (0, 0)  # the place of a shard, and how far that has been read
        self._stopped = False
        self._pool = ThreadPoolExecutor(1, "edgesppo-sha256")
        self._hashing: Future[None] | None = None

    def __enter__(self) -> Watch:
        self._hashing = self._pool.submit(self._hash)
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if error is None:
                self._go_on((len(self._shards), 0))
                self._result()
                self._witness.check(self._shards)
        finally:
            self._stopped = True
            self._go_on(self._reached)
            self._pool.shutdown()

    def read(self, shard: Shard, end: int) -> None:
        """Everything before this byte has been read, of all shards before it, too."""
        self._go_on((self._places[shard.name], end))
        if self._hashing is not None and self._hashing.done():
            self._result()  # that it is done so early may be for an error

    def _go_on(self, reached: tuple[int, int]) -> None:
        with self._came:
            self._reached = reached
            self._came.notify()

    def _result(self) -> None:
        if self._hashing is not None:
            self._hashing.result()

    def _hash(self) -> None:
        for place, shard in enumerate(self._shards):
            if shard.name in self._witness.digests:
                continue
            found, end = hashlib.sha256(), 0
            for data in shard.blocks():
                end += len(data)
                if not self._may_go_on((place, end)):
                    return
                found.update(data)
            self._witness.digests[shard.name] = found.hexdigest()

    def _may_go_on(self, wanted: tuple[int, int]) -> bool:
        with self._came:
            self._came.wait_for(lambda: self._stopped or self._reached >= wanted)
        return not self._stopped
