"""The text of a token as llama.cpp's grammar reads it: leniently, and not as UTF-8 says.

It takes overlong encodings for the characters that they spell, and any byte for a continuation.
A token that spells U+0000 so, which to the grammar is the end of a token, ends the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SPACE_MARK = "▁".encode()
# The high four bits of a first byte -> how many bytes follow; None for a byte that begins nothing.
_FOLLOWING = (*[0] * 8, *[None] * 4, 1, 1, 2, 3)
_MOST_FOLLOWING = 3


def spelling_nul(tokens: Iterable[bytes]) -> bytes | None:
    """The first of some tokens that contains U+0000 as the grammar reads it; None if none does."""
    tokens = [*tokens]
    text = b"\n".join(tokens)
    if b"\0" not in text and is_utf8(text):
        return None
    return next((token for token in tokens if _spells_nul(token)), None)


def is_utf8(text: bytes) -> bool:
    """Whether it is UTF-8: then the grammar reads it like any other decoder."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _spells_nul(token: bytes) -> bool:
    if b"\0" in token:
        return True
    if is_utf8(token):
        return False
    # Normal tokens are read with spaces for their marks. The token before may have ended within a
    # character, so that up to three bytes complete that one.
    return any(
        _has_nul(text, n_before)
        for text in (token, token.replace(_SPACE_MARK, b" "))
        for n_before in range(_MOST_FOLLOWING + 1)
    )


def _has_nul(text: bytes, n_before: int) -> bool:
    """Whether U+0000 is read after `n_before` bytes that complete the character before."""
    start, rest = text[:n_before], text[n_before:]
    if any(byte >> 6 != 0b10 for byte in start):
        return False
    # A character of which one byte is missing is never begun with zeros alone.
    found, at = len(start) > 1 and not any(byte & 0x3F for byte in start), 0
    while at < len(rest):
        following = _FOLLOWING[rest[at] >> 4]
        if following is None:
            return False  # none of the token is read
        value = rest[at] & ((1 << (7 - following)) - 1)
        more = rest[at + 1 : at + 1 + following]
        for byte in more:
            value = value << 6 | byte & 0x3F
        found = found or (value == 0 and len(more) == following)
        at += 1 + following
    return found
