"""Messages from a pipe: one on each line, or on the lines between triple quotes.

The text is read as `edgesppo run` reads it: UTF-8, whatever the locale, without a byte order mark.
It is read line by line, since a program at the other end may wait for each answer.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.repl.quotes import QUOTES, is_open
from edgesppo.system.text_input import MAX_BYTES, sign_of_another_encoding, why_not_utf8

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME = "standard input"
_BOM = "\ufeff"


@dataclass(frozen=True)
class Message:
    """One message or command, as typed; `fault` says why it cannot be handled, None if it can."""

    text: str
    fault: str | None = None


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages in some lines.

    Raises UsageError for a text that is UTF-16 or UTF-32, of which no line can be read, and for a
    message that is longer than any context.
    """
    pending: list[str] = []
    fault: str | None = None
    size = 0  # characters of the pending lines
    for n, raw in enumerate(_read(lines), start=1):
        # Joined files have a mark inside, too.
        line = raw.rstrip("\n").removeprefix(_BOM)
        pending.append(line)
        size = size + 1 + len(line) if len(pending) > 1 else len(line)
        fault = fault or _fault(line, n)
        if size > MAX_BYTES:
            raise UsageError(
                f"{_NAME}: the message on line {n} has more than {MAX_BYTES:,} characters, more"
                " than any context holds; shorten it"
            )
        if len(pending) > 1 and QUOTES not in line:
            continue  # joining the lines each time would take long
        text = "\n".join(pending)
        if not is_open(text):
            yield Message(text, fault)
            pending, fault = [], None
    if pending:
        yield Message("\n".join(pending), fault)


def _read(lines: Iterable[str]) -> Iterable[str]:
    """The lines; those of a stream as UTF-8, with invalid bytes as surrogates, not too long."""
    if not isinstance(lines, io.TextIOWrapper):
        return lines
    if lines.isatty():
        lines.reconfigure(errors="surrogateescape")
    else:
        lines.reconfigure(encoding="utf-8", errors="surrogateescape")
    return iter(lambda: lines.readline(MAX_BYTES + 1), "")


def _fault(line: str, n: int) -> str | None:
    """Why line `n` is not UTF-8. Raises UsageError if the text is UTF-16 or UTF-32."""
    try:
        data = line.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte: checked with the message
        return None
    fault = why_not_utf8(data)
    if fault is None:
        return None
    if n == 1 and sign_of_another_encoding(data):
        raise UsageError(f"{_NAME} is not UTF-8 text: {fault}")
    return f"line {n} of {_NAME} is not UTF-8 text: {fault}"
