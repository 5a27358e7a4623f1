"""Text files attached to the next message: reading them, and joining them with its text.

A file's text becomes ordinary text of the message: none of it can become a control token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.repl import file_names
from edgesppo.system.text_input import MAX_BYTES, read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_FAULTS = 5  # that one message names


@dataclass(frozen=True)
class Attachment:
    """An attached file: its name and its text."""

    name: str
    text: str


def still_attached(attached: Sequence[Attachment]) -> str:
    """A line that says which files go with the next message; empty if there are none."""
    if not attached:
        return ""
    more = len(attached) - 1
    names = attached[-1].name + (f" and {more} more are" if more else " is")
    return f"({names} still attached; /undo removes {'one' if more else 'it'})"


def read(line: str, attached: Sequence[Attachment] = ()) -> list[Attachment]:
    """Read the text files that a line names: all of them, or none.

    `attached` are those attached before. Raises UsageError, which names every file that is missing
    or is not text, and if the files are larger together than any context holds.
    """
    paths, faults = file_names.existing(line)
    files: list[Attachment] = []
    room = MAX_BYTES - sum(len(file.text.encode()) for file in attached)
    for path in paths:
        try:
            files.append(Attachment(_shown(path, paths), read_text(path)))
        except UsageError as error:
            faults.append(str(error))
            continue
        room -= len(files[-1].text.encode())
        if room < 0:
            raise UsageError(
                f"the files have more than {MAX_BYTES:,} bytes together, more than any context"
                " holds; attach fewer"
            )
    if faults:
        more = len(faults) - _MOST_FAULTS
        others = [f"and {more:,} more"] if more > 0 else []
        none = ["no file was attached"] if files or len(faults) > 1 else []
        raise UsageError("; ".join([*faults[:_MOST_FAULTS], *others, *none]))
    return files


def _shown(path: str, paths: Sequence[str]) -> str:
    """The file's name; its path if another file has the same name."""
    name = Path(path).name
    return name if [Path(other).name for other in paths].count(name) == 1 else path


def join(files: Sequence[Attachment], message: str) -> str:
    """One message: each file under its name in a fenced block, then the message text."""
    parts = [f"{file.name}:\n{_fenced(file.text)}" for file in files]
    return "\n\n".join(part for part in [*parts, message] if part)


def _fenced(text: str) -> str:
    """The text between fences longer than any run of backticks in it."""
    longest = max((len(marks) for marks in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
