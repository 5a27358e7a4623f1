"""Owns bytes -> text and text -> text without stop strings. Standard library only, no tokens.

Every transformer has two verbs: `decode(chunk)` gives what is certain so far, `flush()` the rest.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Utf8Decoder:
    """Bytes -> text. Holds back an incomplete character until it is whole.

    A model can produce bytes that are no UTF-8; each maximal bad run becomes U+FFFD, as in
    `bytes.decode(errors="replace")`.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, data: bytes) -> str:
        """The text that became certain with `data`."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What was held back, as U+FFFD."""
        return self._decoder.decode(b"", final=True)


class StopFilter:
    """Text -> text up to the first stop string. Holds back what may begin one.

    The stop string that is found is the one that begins first in the text; `found` names it.
    Nothing that comes after it is given out.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=1)
        self._held = ""
        self.found: str | None = None

    def decode(self, text: str) -> str:
        """The text that became certain with `text`."""
        if not self._stops:
            return text
        if self.found is not None:
            return ""
        held = self._held + text
        hits = [(held.find(stop), stop) for stop in self._stops]
        # The stop that begins first, whatever the list's order; of two at one place the shorter.
        first = min(((at, len(stop), stop) for at, stop in hits if at >= 0), default=None)
        if first is not None and not self._may_begin_before(held, first[0]):
            self.found = first[2]
            self._held = ""
            return held[: first[0]]
        keep = self._held_back(held)
        self._held = held[keep:]
        return held[:keep]

    def flush(self) -> str:
        """What was held back: at the end of the text it can no longer become a stop string."""
        held, self._held = self._held, ""
        return "" if self.found is not None else self._cut(held)

    def _cut(self, held: str) -> str:
        hits = [(held.find(stop), len(stop), stop) for stop in self._stops if stop in held]
        if not hits:
            return held
        at, _, self.found = min(hits)
        return held[:at]

    def _may_begin_before(self, held: str, at: int) -> bool:
        """Whether a longer stop string, still incomplete, begins before `at`."""
        return self._held_back(held) < at

    def _held_back(self, held: str) -> int:
        """Where the longest end of `held` begins that is the beginning of a stop string."""
        for start in range(max(0, len(held) - self._longest + 1), len(held)):
            tail = held[start:]
            if any(len(tail) < len(stop) and stop.startswith(tail) for stop in self._stops):
                return start
        return len(held)
