"""KV snapshots: what the cache holds when the server stops is there again when it starts.

Each is bound to the model, the build and the settings, as those of saved chats are, and to the API
key under which it was computed: with another key it is as if it were not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from typing import TYPE_CHECKING

from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.kv_snapshot import Binding, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgesppo.server.api_keys import ApiKey
    from edgesppo.server.backend import Backend

# Prompts of fewer tokens are sooner computed than read.
_LEAST_TOKENS = 32


class Snapshots:
    """The snapshots in a folder, which may take `cap` bytes; for the worker's thread."""

    def __init__(self, folder: Path, cap: int, keys: Iterable[ApiKey]) -> None:
        self._folder = folder
        self._cap = cap
        self._digests = {"": b""} | {key.name: key.digest for key in keys}

    def restore(self, backend: Backend) -> int:
        """Put back what was saved last, as much as there are sequences; returns how many."""
        with contextlib.suppress(OSError):
            return self._restore(backend)
        return 0

    def _restore(self, backend: Backend) -> int:
        found = [path for path in self._folder.iterdir() if path.suffix == kv_snapshot.SUFFIX]
        newest = sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        n_restored = 0
        for path in newest:
            if n_restored == backend.n_seqs:
                break
            for owner in self._digests:
                snapshot = kv_snapshot.read(path, self._binding(backend, owner), self._cap)
                if snapshot is not None:
                    n_restored += backend.restore(snapshot.ids, snapshot.cells, owner)
                    break
        return n_restored

    def save(self, backend: Backend) -> None:
        """Save what the cache holds; what cannot be saved will be computed again."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for owner, ids, cells in backend.kv_states(_LEAST_TOKENS, self._cap):
                if owner not in self._digests:
                    continue
                binding = self._binding(backend, owner)
                name = hashlib.sha256(f"{binding} {ids}".encode()).hexdigest()[:24]
                path = self._folder / f"{name}{kv_snapshot.SUFFIX}"
                kv_snapshot.write(path, binding, Snapshot(ids, cells))
            kv_snapshot.prune(self._folder, self._cap)

    def _binding(self, backend: Backend, owner: str) -> Binding:
        """What a snapshot depends on, the key among it."""
        binding = backend.binding()
        whose = hashlib.sha256(self._digests[owner] + owner.encode()).hexdigest()
        return dataclasses.replace(binding, settings=f"{binding.settings} {whose}")
