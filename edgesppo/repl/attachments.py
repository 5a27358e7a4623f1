"""Owns files that go with the next message: reading them, and how they stand in it.

Their text is a part of the message: none of it can become a control token.
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
class Attached:
    """A file's name and text."""

    name: str
    text: str


def read(given: str) -> Attached:
    """Read a text file. Raises UsageError, saying why, for what is none."""
    return Attached(Path(given).name, read_text(given))


def joined(files: Sequence[Attached], message: str) -> str:
    """One message: each file under its name, between fences that it does not hold; the text."""
    parts = [f"{file.name}:\n{_fenced(file.text)}" for file in files]
    return "\n\n".join(part for part in [*parts, message] if part)


def _fenced(text: str) -> str:
    longest = max((len(marks) for marks in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
