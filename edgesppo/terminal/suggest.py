"""Did you mean ...?: the known word that a mistyped one is nearest to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# How much of two words must be the same, from 0 to 1: where the guess only explains an error, less.
_ALIKE, _RATHER_ALIKE = 0.75, 0.6


def nearest(word: str, known: Iterable[str], alike: float = _ALIKE) -> str | None:
    """The known word that was probably meant, if any is near enough."""
    import difflib

    return next(iter(difflib.get_close_matches(word.lower(), list(known), 1, alike)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " (did you mean ...?)" with the known word that is nearest; empty where none is near."""
    near = nearest(word, known, _RATHER_ALIKE)
    return f" (did you mean {near}?)" if near else ""
