"""Syntax highlighting of a code block that arrives line by line."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from edgesppo.terminal import style

if TYPE_CHECKING:
    from edgesppo.terminal.cells import Cell

# Lines further up hardly change how a line is read, and lexing all of them would take longer with
# every line.
_LINES_BEFORE = 100
_LONGEST = 500  # longer lines, in characters, stay plain
_SPARE_TOKENS = 100  # that a lexer may yield beyond four for each character


class Highlighter:
    """Highlights the lines of one code block in the language that its fence names."""

    def __init__(self, language: str) -> None:
        self._lexer = _lexer(language)
        self._before: list[str] = []

    def line(self, text: str) -> list[Cell]:
        """The next line as styled runs of text; plain if it cannot be highlighted."""
        before = self._before[-_LINES_BEFORE:]
        if len(text) <= _LONGEST:
            self._before.append(text)
        if self._lexer is None or not text.strip() or len(text) > _LONGEST:
            return [(text, "")]
        try:
            return self._highlighted(before, text)
        except Exception:  # a lexer of pygments, on whatever a model writes
            return [(text, "")]

    def _highlighted(self, before: list[str], text: str) -> list[Cell]:
        code = "\n".join([*before, text, ""])
        end = len(code) - 1
        start = end - len(text)
        runs: list[Cell] = []
        tokens = self._lexer.get_tokens_unprocessed(code)
        # Some lexers yield tokens for ever without advancing.
        for at, kind, value in itertools.islice(tokens, 4 * len(code) + _SPARE_TOKENS):
            if part := value[max(0, start - at) : max(0, end - at)]:
                runs.append((part, _style(kind)))
        complete = "".join(part for part, _ in runs) == text
        return runs if complete else [(text, "")]  # highlighting must not lose a character


def _lexer(language: str) -> Any:
    """The lexer of a language; None for an unknown one."""
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
    return next((sgr for token, sgr in table if kind in token), style.PLAIN)
