"""Text from files, models and networks made harmless: shown on a terminal, never obeyed by it."""

from __future__ import annotations

import re

# A model must not be able to steer the terminal: C0 and C1 control characters but \t and \n, and
# the bytes of a file's name that are no text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def one_line(text: str, limit: int | None = None) -> str:
    """The text with all white space as single spaces, and what cannot be printed spelled out."""
    joined = " ".join(text.split())
    cut = joined if limit is None or len(joined) <= limit else joined[: limit - 3] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)


def printable(text: str) -> str:
    """The text with control characters made visible instead of obeyed."""
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", text)
