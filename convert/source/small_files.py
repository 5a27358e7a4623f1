"""Read the small files of a checkpoint's or an adapter's folder, such as its JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo_convert.source.json_reader import MAX_JSON, name_exists, parse_json, read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo_convert.source.json_reader import JsonObject

MAX_SMALL = 64 << 20


class SmallFiles:
    """A folder whose small files are read by name."""

    _folder: Path

    def read_json(self, name: str) -> JsonObject | None:
        """Parse a JSON file; None if it is missing."""
        data = self.read_small(name, MAX_JSON)
        return None if data is None else parse_json(data, self.display_name(name))

    def read_small(self, name: str, limit: int = MAX_SMALL) -> bytes | None:
        """Read a file of at most `limit` bytes; None if it is missing."""
        path = self._folder / name
        return read_bytes(path, limit) if name_exists(path) else None

    def display_name(self, name: str) -> str:
        """The name of a file, for messages."""
        return str(self._folder / name)
