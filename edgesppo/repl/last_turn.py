"""A short form of the last turn, shown when a chat is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.system.sanitize import printable
from edgesppo.terminal.columns import wrap_words
from edgesppo.terminal.format import n_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.messages import Message

# Lines that are shown of the question, and of the beginning and end of the answer.
_QUESTION, _HEAD, _TAIL = 3, 4, 4
_MARK = "  | "
_LONGEST = 300  # longer lines, in characters, are cut


def recap(messages: Sequence[Message], columns: int | None) -> list[str]:
    """The last question and answer, shortened, as rows of at most `columns` (None: any)."""
    if not messages:
        return []
    asked, answer = messages[-2:]
    said = _shortened(answer.content, _HEAD, _TAIL)
    if why := unfinished(answer):
        said.append(why.strip())
    n = len(messages) // 2
    return [
        f"(the last of {n_turns(n)})" if n > 1 else "(the last turn)",
        *_marked("you: ", _shortened(asked.content, _QUESTION, 0), columns),
        *_marked("answer: ", said, columns),
    ]


def unfinished(answer: Message) -> str:
    """Why an answer is incomplete, as " (stopped)"; empty for a complete one."""
    return {"cancelled": " (stopped)", "length": " (cut off at the limit)"}.get(
        answer.finish_reason or "", ""
    )


def _marked(who: str, lines: Sequence[str], columns: int | None) -> list[str]:
    if columns is not None:
        room = columns - len(_MARK) - len(who)
        lines = [row for line in lines for row in wrap_words(line, room)]
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
