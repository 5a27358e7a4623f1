"""Text files attached to the next message: reading them, and joining them with its text.

A file's text becomes ordinary text of the message: none of it can become a control token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.system.text_input import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Attachment:
    """An attached file: its name and its text."""

    name: str
    text: str


def read(path: str) -> Attachment:
    """Read a text file. Raises UsageError if it cannot be read or is not text."""
    return Attachment(Path(path).name, read_text(path))


def join(files: Sequence[Attachment], message: str) -> str:
    """One message: each file under its name in a fenced block, then the message text."""
    parts = [f"{file.name}:\n{_fenced(file.text)}" for file in files]
    return "\n\n".join(part for part in [*parts, message] if part)


def _fenced(text: str) -> str:
    """The text between fences longer than any run of backticks in it."""
    longest = max((len(marks) for marks in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
