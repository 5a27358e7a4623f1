"""Incremental decoders: bytes -> text, and text -> text up to a stop string.

Both have two methods: `decode(chunk)` returns what is certain so far, `flush()` the rest.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Utf8Decoder:
    """Bytes -> text. Holds back an incomplete character until its last byte.

    Bytes that are not UTF-8, which a model can produce, become U+FFFD, as in
    `bytes.decode(errors="replace")`.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, data: bytes) -> str:
        """The text that is certain after `data`."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The bytes that were held back, as U+FFFD."""
        return self._decoder.decode(b"", final=True)


class StopFilter:
    """Text -> text up to the first stop string. Holds back text that may begin one.

    `found` is the stop string that begins first in the text, None until then. Neither it nor any
    text after it is returned.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=1)
        self._held = ""
        self.found: str | None = None

    def decode(self, text: str) -> str:
        """The text that is certain after `text`."""
        if not self._stops:
            return text
        if self.found is not None:
            return ""
        held = self._held + text
        hits = [(held.find(stop), stop) for stop in self._stops]
        # The stop string that begins first, whatever the list's order; if two do, the shorter.
        first = min(((at, len(stop), stop) for at, stop in hits if at >= 0), default=None)
        if first is not None and not self._may_begin_before(held, first[0]):
            self.found = first[2]
            self._held = ""
            return held[: first[0]]
        keep = self._held_back(held)
        self._held = held[keep:]
        return held[:keep]

    def flush(self) -> str:
        """The text that was held back; at the end it can no longer become a stop string."""
        held, self._held = self._held, ""
        return "" if self.found is not None else self._cut(held)

    def _cut(self, held: str) -> str:
        """The text up to a stop string in it, if there is one."""
        hits = [(held.find(stop), len(stop), stop) for stop in self._stops if stop in held]
        if not hits:
            return held
        at, _, self.found = min(hits)
        return held[:at]

    def _may_begin_before(self, held: str, at: int) -> bool:
        """Whether an incomplete, longer stop string begins before `at`."""
        return self._held_back(held) < at

    def _held_back(self, held: str) -> int:
        """The start of the longest suffix of `held` that is a proper prefix of a stop string."""
        for start in range(max(0, len(held) - self._longest + 1), len(held)):
            tail = held[start:]
            if any(len(tail) < len(stop) and stop.startswith(tail) for stop in self._stops):
                return start
        return len(held)
