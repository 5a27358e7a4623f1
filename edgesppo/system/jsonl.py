"""Append-only files of events: one JSON object per line, after a checksum of all lines so far.

    CRC32 {"run": "9f3c", "pid": 4711}
    CRC32 {"tensor": "blk.0.attn_q.weight"}

Each checksum continues the one before it, so the valid part of a file ends at the first line that
was changed, removed, repeated, moved or cut off by a crash, or that is not a JSON object.
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
# The marks in JSON that open or close something; a backslash includes what it escapes.
_MARKS = re.compile(rb"""\\.|[][{}"]""", re.DOTALL)
_CLOSERS = {b"{": b"}", b"[": b"]"}
_ESCAPE = re.compile(rb"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?\Z")
# What may have to be added before the closing brackets to complete JSON that was cut anywhere.
_WORDS = (b"true", b"false", b"null")
_MORE = (b"", b"0", b": 0", b'"": 0', *(word[n:] for word in _WORDS for n in range(1, 5)))


@dataclass(frozen=True)
class Line:
    """An event that was read, the offset where its line ends, and the checksum up to there."""

    event: dict[str, Any]
    end: int
    crc: int


def encode(events: Iterable[dict[str, Any]], crc: int = 0) -> tuple[bytes, int]:
    """The lines of these events, to follow a line with checksum `crc`; and the last checksum."""
    data = b""
    for event in events:
        text = json.dumps(event).encode()
        crc = zlib.crc32(text, crc)
        data += b"%08x %s\n" % (crc, text)
    return data, crc


def read_valid(data: bytes) -> list[Line]:
    """Every event up to the first line that is incomplete or damaged."""
    lines: list[Line] = []
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
        lines.append(Line(event, end, crc))
    return lines


def is_unfinished(data: bytes) -> bool:
    """Whether these bytes, without a newline, can be the beginning of a line that was cut off.

    A line that lacks only its newline does not count: with a right checksum `read_valid` would
    have taken it. Nor does one that ends like a complete line but inside a string: a quote in it
    was changed.
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
    """The JSON object of a line; None if it is anything else, or cannot be parsed."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _open_ends(text: bytes) -> tuple[bool, bytes]:
    """Whether a cut-off JSON text ends within a string, and the brackets that would close it."""
    closers: list[bytes] = []
    in_string = False
    for mark in _MARKS.findall(text):
        if mark == b'"':
            in_string = not in_string
        elif not in_string and mark in _CLOSERS:
            closers.append(_CLOSERS[mark])
        elif not in_string and (not closers or closers.pop() != mark):
            return in_string, b""
    return in_string, b"".join(reversed(closers))
