"""The journal beside an output: which process writes it, and which tensors are on the disk.

One event per line; a line that a crash cut off ends the journal there.

    CRC32 {"run": "<fingerprint of the conversion>", "pid": 4711, "host": "pi"}
    CRC32 {"tensor": "blk.0.attn_q.weight", "sha256": "..."}

The open file is also the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.system import filelock, jsonl, notices
from edgesppo.system.fs import read_all, write_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgesppo.system.fs import FileSystem

MAX_BYTES = 64 << 20  # a hundred thousand tensors take half of it


class Journal:
    """The journal of one output, locked from construction until `close`.

    Raises OutputError if another process has locked it.
    """

    def __init__(self, path: Path, output: Path, files: FileSystem) -> None:
        self.path = path
        self._files = files
        self._end = self._crc = 0  # of the valid lines
        try:
            self._descriptor = filelock.open_locked(path, files)
        except filelock.LockHeld as held:
            raise filelock.being_written(output, held) from None

    def finished_tensors(self, fingerprint: str) -> dict[str, str]:
        """The sha256 by name of each tensor that earlier runs of this conversion finished."""
        data = read_all(self._files, self._descriptor, MAX_BYTES)
        finished: dict[str, str] = {}
        runs: set[str] = set()
        for line in jsonl.read_valid(data):
            run, tensor, sha256 = map(line.event.get, ("run", "tensor", "sha256"))
            if isinstance(run, str):
                runs.add(run)
            elif isinstance(tensor, str) and isinstance(sha256, str):
                finished[tensor] = sha256
            else:
                break  # not ours
            self._end, self._crc = line.end, line.crc
        if runs == {fingerprint}:
            return finished
        if finished:
            notices.notify(
                f"{len(finished):,} tensors that an earlier run finished are made again: the"
                " checkpoint, the options, llama.cpp or edgesppo has changed since"
            )
        return {}

    def start(self, fingerprint: str, *, restart: bool) -> None:
        """Record that this process begins; `restart` discards what was recorded before."""
        if restart:
            self._end = self._crc = 0
        self._files.truncate(self._descriptor, self._end)
        self._append([{"run": fingerprint, **filelock.this_process()}])

    def add(self, tensors: Iterable[tuple[str, str]]) -> None:
        """Record these tensors, by name and sha256, as finished; their data must be on the disk."""
        self._append({"tensor": name, "sha256": digest} for name, digest in tensors)

    def close(self, *, remove: bool) -> None:
        """Release the lock; `remove` the file unless a later run can resume from it."""
        filelock.close_locked(self.path, self._descriptor, self._files, remove=remove)

    def _append(self, events: Iterable[dict[str, Any]]) -> None:
        data, crc = jsonl.encode(events, self._crc)
        write_all(self._files, self._descriptor, data, self._end)
        self._end, self._crc = self._end + len(data), crc
