"""Owns guessing which of several words a person meant. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def like(word: str, words: Iterable[str]) -> str:
    """ ", did you mean ...?" with the nearest of the words; empty where none is near."""
    near = get_close_matches(word, [*words], n=1)
    return f" (did you mean {near[0]}?)" if near else ""
