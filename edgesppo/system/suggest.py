"""Suggestions for mistyped words ("did you mean ...?")."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# The least similarity of two words, from 0 to 1; less is enough where the guess only adds to an
# error message.
SIMILAR, SOMEWHAT_SIMILAR = 0.75, 0.6
_LONGEST = 300  # characters of a word that are compared


def nearest(word: str, known: Iterable[str], similarity: float = SIMILAR) -> str | None:
    """The known word that is most similar, None if none is similar enough (0 to 1)."""
    import difflib

    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word[:_LONGEST].lower(), lowered, 1, similarity)
    return lowered[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The text " (did you mean ...?)" with the most similar known word; empty if there is none."""
    near = nearest(word, known, SOMEWHAT_SIMILAR)
    return f" (did you mean {near}?)" if near else ""
