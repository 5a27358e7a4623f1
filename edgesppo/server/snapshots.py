"""KV snapshots: what the cache holds when the server stops is there again when it starts.

Each is bound to the model, the build and the settings, as those of saved chats are, and to the API
key under which it was computed: with another key it is as if it were not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import os
import time
from typing import TYPE_CHECKING

from edgesppo.errors import EdgesppoError
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.kv_snapshot import Binding, Snapshot
from edgesppo.sessions.kv_state import max_state_bytes
from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from edgesppo.server.api_keys import ApiKey
    from edgesppo.server.backend import Backend
    from edgesppo.system.fs import Bytes

# Prompts of fewer tokens are sooner computed than read.
_LEAST_TOKENS = 32
# What may fail without harm: there is no room, or the cells cannot be had.
_HARMLESS = (OSError, EdgesppoError, MemoryError)
# How much older a file is made than the one that was used after it: some file systems round.
_STEP_NS = 10_000_000
_PIECE = 16 << 20  # bytes that are written in a moment


class _StoppableFiles(FileSystem):
    """Files that are written while it `goes_on`; then writing fails."""

    def __init__(self, goes_on: Callable[[], bool]) -> None:
        self._goes_on = goes_on

    def write(self, descriptor: int, data: Bytes, offset: int) -> int:
        """Write a piece of the data at `offset`; returns its length. Raises OSError."""
        if not self._goes_on():
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        return super().write(descriptor, memoryview(data)[:_PIECE], offset)


class Snapshots:
    """The snapshots in a folder, which may take `cap` bytes; for the worker's thread."""

    def __init__(self, folder: Path, cap: int, keys: Iterable[ApiKey]) -> None:
        self._folder = folder
        self._cap = cap
        self._digests = {"": b""} | {key.name: key.digest for key in keys}

    def restore(self, backend: Backend) -> int:
        """Put back what was saved last, as much as there are sequences; returns how many."""
        n_restored = 0
        with contextlib.suppress(*_HARMLESS):
            # The latest last: what is put back last is the last to make room for others.
            for path, owner in reversed(self._latest(backend)):
                limit = max_state_bytes(self._cap)
                snapshot = kv_snapshot.read(path, self._binding(backend, owner), limit)
                if snapshot is not None:
                    n_restored += backend.restore(snapshot.ids, snapshot.cells, owner)
        return n_restored

    def _latest(self, backend: Backend) -> list[tuple[Path, str]]:
        """The files to restore, the latest first, each with the name of its key."""
        found = [path for path in self._folder.iterdir() if path.suffix == kv_snapshot.SUFFIX]
        found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        bindings = {owner: self._binding(backend, owner) for owner in self._digests}
        usable = (
            (path, owner)
            for path in found
            for owner, binding in bindings.items()
            if kv_snapshot.belongs(path, binding)
        )
        return list(itertools.islice(usable, backend.n_seqs))

    def save(self, backend: Backend, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Save what the cache holds, while it `goes_on`; the rest will be computed again."""
        with contextlib.suppress(*_HARMLESS):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._save(backend, goes_on)

    def _save(self, backend: Backend, goes_on: Callable[[], bool]) -> None:
        """Save the latest first, in case that the disk or the time ends, within the cap."""
        now, total = time.time_ns(), 0
        limit = max_state_bytes(self._cap)
        files = _StoppableFiles(goes_on)
        for n, (owner, ids, cells) in enumerate(backend.kv_states(_LEAST_TOKENS, limit)):
            if not goes_on():
                return
            if owner not in self._digests:
                continue
            snapshot = Snapshot(ids, cells)
            total += snapshot.n_bytes
            if total > self._cap:
                return
            kv_snapshot.prune(self._folder, self._cap - snapshot.n_bytes)
            binding = self._binding(backend, owner)
            name = hashlib.sha256(f"{binding} {ids}".encode()).hexdigest()[:24]
            path = self._folder / f"{name}{kv_snapshot.SUFFIX}"
            kv_snapshot.write(path, binding, snapshot, files)
            used_at = now - n * _STEP_NS
            os.utime(path, ns=(used_at, used_at))

    def _binding(self, backend: Backend, owner: str) -> Binding:
        """What a snapshot depends on, the key among it."""
        binding = backend.binding()
        whose = hashlib.sha256(self._digests[owner] + owner.encode()).hexdigest()
        return dataclasses.replace(binding, settings=f"{binding.settings} {whose}")
