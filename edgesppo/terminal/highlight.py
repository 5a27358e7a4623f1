"""Owns the colours of code: one line of it at a time, as it streams. Knows no terminal."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from edgesppo.terminal import style

if TYPE_CHECKING:
    from edgesppo.terminal.cells import Cell

# What stands further up hardly changes how a line is read, and reading it all would take ever
# longer.
_LINES_BEFORE = 100
_LONGEST = 500  # characters of a line of code that is coloured
_SPARE_TOKENS = 100  # beside those that stand for text


class Highlighter:
    """The lines of one block of code, in the language that its fence names."""

    def __init__(self, language: str) -> None:
        self._lexer = _lexer(language)
        self._before: list[str] = []

    def line(self, text: str) -> list[Cell]:
        """The next line, in styled cells. A cell here is a run of text."""
        before = self._before[-_LINES_BEFORE:]
        if len(text) <= _LONGEST:
            self._before.append(text)
        if self._lexer is None or not text.strip() or len(text) > _LONGEST:
            return [(text, "")]
        try:
            return self._coloured(before, text)
        except Exception:  # another's code, on whatever a model writes
            return [(text, "")]

    def _coloured(self, before: list[str], text: str) -> list[Cell]:
        code = "\n".join([*before, text, ""])
        end = len(code) - 1
        start = end - len(text)
        found: list[Cell] = []
        tokens = self._lexer.get_tokens_unprocessed(code)
        # Some lexers go on without end where they do not get on.
        for at, kind, value in itertools.islice(tokens, 4 * len(code) + _SPARE_TOKENS):
            if part := value[max(0, start - at) : max(0, end - at)]:
                found.append((part, _style(kind)))
        whole = "".join(part for part, _ in found) == text
        return found if whole else [(text, "")]  # colours must never cost a character


def _lexer(language: str) -> Any:
    """The lexer of a language; None for one that nobody knows."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language) if language else None
    except ClassNotFound:
        return None


def _style(kind: Any) -> str:
    from pygments.token import Comment, Error, Keyword, Literal, Name, Number, Operator, String

    table = [
        (Comment, style.FAINT),
        (Keyword, style.BOLD),
        (Operator.Word, style.BOLD),
        (Name.Tag, style.BOLD),
        (String, style.GREEN),
        (Number, style.MAGENTA),
        (Literal, style.MAGENTA),
        (Name.Builtin, style.PLAIN),
        (Error, style.PLAIN),
    ]
    return next((found for token, found in table if kind in token), style.PLAIN)
