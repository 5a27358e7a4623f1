"""Make text from files, models and networks safe to show: a terminal must not obey it."""

from __future__ import annotations

import re

# C0 and C1 control characters except \t and \n, which could steer the terminal, and surrogates,
# which stand for the bytes of a file's name that are not text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def one_line(text: str, limit: int | None = None) -> str:
    """The text on one line: single spaces, cut to `limit` characters, unprintable ones escaped."""
    joined = " ".join(text.split())
    cut = joined if limit is None or len(joined) <= limit else joined[: limit - 3] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)


def printable(text: str) -> str:
    """The text with its control characters escaped, such as \\x1b."""
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", text)
