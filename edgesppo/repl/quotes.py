"""Triple quotes around a message, or the text of a command, of several lines.

What begins with them is a message, even if a command stands between them.
"""

from __future__ import annotations

import re

QUOTES = '"""'
_BEGIN = re.compile(rf"\s*(?:/\S+[ \t]+)?{QUOTES}")


def is_open(text: str) -> bool:
    """Whether the text, or that of a command, starts a block that has not ended."""
    return _BEGIN.match(text) is not None and _after_block(text) is None


def unquoted(text: str) -> str:
    """The text without its triple quotes; unchanged if text follows the block."""
    inner = text.strip()
    if not inner.startswith(QUOTES) or _after_block(inner):
        return text
    return inner.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")


def _after_block(text: str) -> str | None:
    """The text after a block; None if the block has not ended.

    A block ends with the first line that ends in triple quotes. Text may follow: a pasted program
    may begin with a docstring.
    """
    lines = _BEGIN.sub("", text.strip(), count=1).split("\n")
    ends = (n for n, line in enumerate(lines) if line.rstrip().endswith(QUOTES))
    end = next(ends, None)
    return None if end is None else "\n".join(lines[end + 1 :])
