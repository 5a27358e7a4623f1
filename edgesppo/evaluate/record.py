"""What an interrupted run has done already, in a file beside its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.system import jsonl
from edgesppo.system.fs import write_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Record:
    """Events in a file that begins with `head`, which says what they belong to."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self._head = head

    def read(self) -> list[dict[str, Any]]:
        """The events; none if the file is missing or belongs to something else."""
        try:
            lines = [line.event for line in jsonl.read_valid(self.path.read_bytes())]
        except OSError:
            return []
        return lines[1:] if lines and lines[0] == self._head else []

    def write(self, events: Iterable[dict[str, Any]]) -> None:
        """Replace the events. Raises OutputError."""
        write_file(self.path, jsonl.encode([self._head, *events])[0])
