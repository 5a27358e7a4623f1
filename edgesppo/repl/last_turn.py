"""Owns how the last turn of a chat reads when somebody comes back to it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.system.sanitize import printable
from edgesppo.terminal.columns import between_words
from edgesppo.terminal.format import n_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.template import Message

_ASKED, _FIRST, _LAST = 3, 4, 4  # lines of the question; of the answer's beginning and end
_MARK = "  | "
_LONGEST = 300  # characters of a line


def recap(messages: Sequence[Message], columns: int | None) -> list[str]:
    """The last question and answer, shortened, each row marked as a part of them.

    A row has so many columns at most; None: as many as it takes.
    """
    if not messages:
        return []
    asked, answer = messages[-2:]
    said = _shortened(answer.content, _FIRST, _LAST)
    n = len(messages) // 2
    return [
        f"(the last of {n_turns(n)}, shown once more)" if n > 1 else "(shown once more)",
        *_marked("you: ", _shortened(asked.content, _ASKED, 0), columns),
        *_marked(f"answer{unfinished(answer)}: ", said, columns),
    ]


def unfinished(answer: Message) -> str:
    """What is said of an answer that did not come to its end, behind a space; else nothing."""
    return {"cancelled": " (stopped)", "length": " (cut at the limit)"}.get(
        answer.finish_reason or "", ""
    )


def _marked(who: str, lines: Sequence[str], columns: int | None) -> list[str]:
    if columns is not None:
        room = columns - len(_MARK) - len(who)
        lines = [row for line in lines for row in between_words(line, room)]
    margins = [who, *[" " * len(who)] * (len(lines) - 1)]
    return [f"{_MARK}{margin}{line}".rstrip() for margin, line in zip(margins, lines, strict=True)]


def _shortened(text: str, first: int, last: int) -> list[str]:
    lines = [_cut(line) for line in printable(text).expandtabs(4).split("\n") if line.strip()]
    lines = lines or [""]
    if len(lines) <= first + last + 1:
        return lines
    hidden = len(lines) - first - last
    return [*lines[:first], f"[... {hidden} more lines]", *lines[len(lines) - last :]]


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST].rstrip()} [...]"
