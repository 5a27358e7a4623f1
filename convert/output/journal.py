"""Owns the journal beside an output: who is at work, and which tensors are safely on the disk.

One line an event; a line that a crash cut off ends the journal there.

    CRC32 {"run": "<fingerprint of the conversion>", "pid": 4711, "host": "pi"}
    CRC32 {"tensor": "blk.0.attn_q.weight", "sha256": "..."}

The open file is also the lock. Knows nothing of GGUF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.errors import OutputError
from edgesppo.system import filelock, jsonl
from edgesppo.system.fs import read_all, write_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgesppo.system.fs import FileSystem

MAX_BYTES = 64 << 20  # a hundred thousand tensors take half of it


class Journal:
    """The journal of one output, locked from construction until `close`."""

    def __init__(self, path: Path, output: Path, files: FileSystem) -> None:
        self.path = path
        self._files = files
        self._end = self._crc = 0  # of what is sound
        try:
            self._descriptor = filelock.open_locked(path, files)
        except filelock.LockHeld as held:
            raise OutputError(
                f"{output} is being written by {held.owner}; wait for it, or stop it"
            ) from None

    def recorded(self, fingerprint: str) -> dict[str, str]:
        """The sha256 of each tensor that this same conversion has finished, by name."""
        found = jsonl.read_valid(read_all(self._files, self._descriptor, MAX_BYTES))
        if found:
            self._end, self._crc = found[-1].end, found[-1].crc
        events = [line.event for line in found]
        runs = [event["run"] for event in events if "run" in event]
        if not runs or any(run != fingerprint for run in runs):
            return {}
        return {event["tensor"]: event["sha256"] for event in events if "tensor" in event}

    def begin(self, fingerprint: str, *, anew: bool) -> None:
        """Say that this process is at work, after what is sound so far or from the start."""
        if anew:
            self._end = self._crc = 0
        self._files.truncate(self._descriptor, self._end)
        self._append([{"run": fingerprint, **filelock.this_process()}])

    def add(self, tensors: Iterable[tuple[str, str]]) -> None:
        """Claim these tensors, by name and sha256; their data must be on the disk."""
        self._append({"tensor": name, "sha256": digest} for name, digest in tensors)

    def close(self, *, remove: bool) -> None:
        """Give the lock back; unless there is something to go on from, the file goes, too."""
        filelock.close_locked(self.path, self._descriptor, self._files, remove=remove)

    def _append(self, events: Iterable[dict[str, Any]]) -> None:
        data, crc = jsonl.encode(events, self._crc)
        write_all(self._files, self._descriptor, data, self._end)
        self._end, self._crc = self._end + len(data), crc
