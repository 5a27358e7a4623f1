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
    from collections.abc import Iterable, Iterator

_HEAD = 9  # bytes: the checksum and a space
_MAX_LINE = 64 << 20  # bytes: the longest message, with every letter escaped
# Python makes up to sixty bytes of one outside of strings; the longest list of biases takes 5 MB.
_MAX_MARKS = 8 << 20
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
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
    lines = []
    for event in events:
        text = json.dumps(event).encode()
        crc = zlib.crc32(text, crc)
        lines.append(b"%08x %s\n" % (crc, text))
    return b"".join(lines), crc


def read_valid(data: bytes, *, last_may_lack_end: bool = False) -> Iterator[Line]:
    """Every event up to the first line that is incomplete or damaged.

    `last_may_lack_end` accepts a last line whose newline is missing or is another byte.
    """
    at = crc = 0
    while at < len(data):
        found = data.find(b"\n", at)
        stop = len(data) if found < 0 else found
        texts = [(data[at:stop], stop + 1)]
        if found < 0:
            texts = [*texts, (data[at : stop - 1], stop)] if last_may_lack_end else []
        line = next((line for text, end in texts if (line := _line(text, end, crc))), None)
        if line is None:
            return
        yield line
        at, crc = line.end, line.crc


def _line(data: bytes, end: int, crc: int) -> Line | None:
    """The event of a line without its newline; None if it is damaged."""
    text = data[_HEAD:]
    crc = zlib.crc32(text, crc)
    if data[:_HEAD] != b"%08x " % crc:
        return None
    event = _event(text)
    return None if event is None else Line(event, end, crc)


def is_unfinished(data: bytes) -> bool:
    """Whether these bytes, without a newline, can be the beginning of a line that was cut off.

    A line that lacks only its newline does not count: with a right checksum `read_valid` would
    have taken it. Nor does one that ends like a complete line but inside a string: a quote in it
    was changed.
    """
    if len(data) <= _HEAD:
        return re.fullmatch(rb"[0-9a-f]{0,8} ?", data) is not None
    if len(data) > _MAX_LINE or not re.match(rb"[0-9a-f]{8} \{", data):
        return False
    text = data[_HEAD:]
    in_string, closers = _open_ends(text)
    if not closers or (in_string and text.endswith(b"}")):
        return False
    if in_string:
        text = _ESCAPE.sub(rb"\1", text) + b'"'
    return any(_event(text + more + closers) is not None for more in _MORE)


def _event(text: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None if it is anything else, or too large to be parsed."""
    if len(text) > _MAX_LINE or (
        len(text) > _MAX_MARKS and len(_STRING.sub(b"", text)) > _MAX_MARKS
    ):
        return None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _open_ends(text: bytes) -> tuple[bool, bytes]:
    """Whether a cut-off JSON text ends within a string, and the brackets that would close it."""
    closers: list[bytes] = []
    in_string = False
    for found in _MARKS.finditer(text):
        mark = found[0]
        if mark == b'"':
            in_string = not in_string
        elif not in_string and mark in _CLOSERS:
            closers.append(_CLOSERS[mark])
        elif not in_string and (not closers or closers.pop() != mark):
            return in_string, b""
    return in_string, b"".join(reversed(closers))
