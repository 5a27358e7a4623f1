"""Owns how a stranger's text is shown: on one line, and nothing in it is obeyed. Pure."""

from __future__ import annotations


def one_line(text: str, limit: int | None = None) -> str:
    """The text with all white space as single spaces, and what cannot be printed spelled out."""
    joined = " ".join(text.split())
    cut = joined if limit is None or len(joined) <= limit else joined[: limit - 3] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
