"""Owns the journal beside an output: who is at work, and which tensors are safely on the disk.

One line an event, each behind a checksum; a line that a crash cut off ends the journal there.

    CRC32 {"run": "<fingerprint of the conversion>", "pid": 4711, "host": "pi"}
    CRC32 {"tensor": "blk.0.attn_q.weight", "sha256": "..."}

The open file is also the lock: the system frees it when its process ends, however that ends.
Knows nothing of GGUF.
"""

from __future__ import annotations

import json
import os
import socket
import zlib
from typing import TYPE_CHECKING, Any

from edgesppo.errors import OutputError
from edgesppo_convert.files import write_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edgesppo_convert.files import Files

MAX_BYTES = 64 << 20  # a hundred thousand tensors take half of it
_ATTEMPTS = 100


class Journal:
    """The journal of one output, locked from construction until `close`."""

    def __init__(self, path: Path, output: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self._end = 0  # of what is sound
        self._descriptor = self._lock(output)

    def recorded(self, fingerprint: str) -> dict[str, str]:
        """The sha256 of each tensor that this same conversion has finished, by name."""
        lines = list(_sound(self._read()))
        self._end = lines[-1][1] if lines else 0
        events = [event for event, _ in lines]
        runs = [event["run"] for event in events if "run" in event]
        if not runs or any(run != fingerprint for run in runs):
            return {}
        return {event["tensor"]: event["sha256"] for event in events if "tensor" in event}

    def begin(self, fingerprint: str, *, anew: bool) -> None:
        """Say that this process is at work, after what is sound so far or from the start."""
        if anew:
            self._end = 0
        self._files.truncate(self._descriptor, self._end)
        self._append([{"run": fingerprint, "pid": os.getpid(), "host": socket.gethostname()}])

    def add(self, tensors: Iterable[tuple[str, str]]) -> None:
        """Claim these tensors, by name and sha256; their data must be on the disk."""
        self._append({"tensor": name, "sha256": digest} for name, digest in tensors)

    def close(self, *, remove: bool) -> None:
        """Give the lock back; unless there is something to go on from, the file goes, too."""
        try:
            if remove and os.name != "nt":  # while it is still ours
                self._files.unlink(self.path)
        finally:
            self._files.close(self._descriptor)
        if remove and os.name == "nt":  # an open file cannot be removed there
            self._files.unlink(self.path)

    def _append(self, events: Iterable[dict[str, Any]]) -> None:
        data = b"".join(map(_line, events))
        write_all(self._files, self._descriptor, data, self._end)
        self._end += len(data)

    def _lock(self, output: Path) -> int:
        for _ in range(_ATTEMPTS):
            descriptor = self._files.open_or_create(self.path)
            try:
                self._files.lock(descriptor)
                if _is_at(self.path, descriptor):
                    return descriptor
            except BlockingIOError:
                owner = _owner(self._files.read(descriptor, MAX_BYTES, 0))
                self._files.close(descriptor)
                raise OutputError(
                    f"{output} is being written by {owner}; wait for it, or stop it"
                ) from None
            except BaseException:
                self._files.close(descriptor)
                if self.path.stat().st_size == 0:  # no other's: that would have been locked
                    self._files.unlink(self.path)
                raise
            self._files.close(descriptor)  # it was removed before the lock was ours
        raise OutputError(f"{output}: {self.path} comes and goes; is another conversion at work?")

    def _read(self) -> bytes:
        data = b""
        while part := self._files.read(self._descriptor, MAX_BYTES - len(data), len(data)):
            data += part
        return data


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _owner(data: bytes) -> str:
    runs = [event for event, _ in _sound(data) if "run" in event]
    if not runs:
        return "another process"
    return f"process {runs[-1].get('pid')} on {runs[-1].get('host')}"


def _line(event: dict[str, Any]) -> bytes:
    text = json.dumps(event).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _sound(data: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """Every event up to the first that is not whole, and where its line ends."""
    end = 0
    for line in data.splitlines(keepends=True):
        text = line[9:-1]
        if line != b"%08x %s\n" % (zlib.crc32(text), text):
            return
        end += len(line)
        yield json.loads(text), end
