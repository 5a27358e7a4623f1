"""Owns append-only files of events: one JSON object a line, behind a checksum of all so far.

    CRC32 {"run": "9f3c", "pid": 4711}
    CRC32 {"tensor": "blk.0.attn_q.weight"}

Each checksum goes on from the one before it, so a line that was changed, dropped, doubled or moved
ends what is sound, and so does one that a crash cut off, or that is no object. Knows nothing of
what the events mean.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD = 9  # bytes: the checksum and a space
# What of JSON opens or closes something; a backslash comes with what it escapes.
_MARKS = re.compile(rb"""\\.|[][{}"]""", re.DOTALL)
_CLOSERS = {b"{": b"}", b"[": b"]"}
_ESCAPE = re.compile(rb"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?\Z")
# What a text that was cut anywhere may lack to be closed.
_WORDS = (b"true", b"false", b"null")
_MORE = (b"", b"0", b": 0", b'"": 0', *(word[n:] for word in _WORDS for n in range(1, 5)))


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
        event = _event(text)
        if event is None:
            break
        end += len(line)
        found.append(Line(event, end, crc))
    return found


def is_begun(data: bytes) -> bool:
    """Whether these bytes, without a newline, can be one of our lines that was never finished.

    A line that is whole but for its newline is none: its checksum would have made it sound. Nor
    is one that ends like a whole line inside of a string: a quote of it was changed.
    """
    if len(data) <= _HEAD:
        return re.fullmatch(rb"[0-9a-f]{0,8} ?", data) is not None
    if not re.match(rb"[0-9a-f]{8} \{", data):
        return False
    text = data[_HEAD:]
    in_string, closers = _open_ends(text)
    if not closers or (in_string and text.endswith(b"}")):
        return False
    if in_string:
        text = _ESCAPE.sub(rb"\1", text) + b'"'
    return any(_event(text + more + closers) is not None for more in _MORE)


def _event(text: bytes) -> dict[str, Any] | None:
    """The JSON object that a line holds; None for what is none, or none that can be read."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _open_ends(text: bytes) -> tuple[bool, bytes]:
    """Whether a text that begins JSON ends inside of a string, and what would close the rest."""
    closers: list[bytes] = []
    in_string = False
    for found in _MARKS.findall(text):
        if found == b'"':
            in_string = not in_string
        elif not in_string and found in _CLOSERS:
            closers.append(_CLOSERS[found])
        elif not in_string and (not closers or closers.pop() != found):
            return in_string, b""
    return in_string, b"".join(reversed(closers))
