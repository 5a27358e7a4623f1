"""Owns append-only files of events: one JSON object a line, behind a checksum of all so far.

    CRC32 {"run": "9f3c", "pid": 4711}
    CRC32 {"tensor": "blk.0.attn_q.weight"}

Each checksum goes on from the one before it, so a line that was changed, dropped, doubled or moved
ends what is sound, and so does one that a crash cut off. Knows nothing of what the events mean.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Line:
    """An event that was read: where its line ends in the file, and the checksum up to there."""

    event: dict[str, Any]
    end: int
    crc: int


def encode(events: Iterable[dict[str, Any]], crc: int = 0) -> tuple[bytes, int]:
    """The lines of these events after a line with this checksum, and the last one's."""
    data = b""
    for event in events:
        text = json.dumps(event).encode()
        crc = zlib.crc32(text, crc)
        data += b"%08x %s\n" % (crc, text)
    return data, crc


def sound(data: bytes) -> list[Line]:
    """Every event up to the first line that is not whole."""
    found: list[Line] = []
    end = crc = 0
    for line in data.splitlines(keepends=True):
        text = line[9:-1]
        crc = zlib.crc32(text, crc)
        if line != b"%08x %s\n" % (crc, text):
            break
        end += len(line)
        found.append(Line(json.loads(text), end, crc))
    return found
