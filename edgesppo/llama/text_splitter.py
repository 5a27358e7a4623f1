"""Owns where a long text can be cut so that its tokens are those of its parts, one after another.

llama.cpp's tokenizer takes time that grows with the square of a text's length where many
characters are spelled in bytes, or many user-defined pieces are found. Cut into parts, the time
grows with the length, and the tokens stay the same, for two reasons:

- Tokens are merged from neighbours, and every merge gives a piece of the vocabulary. Where two
  characters stand side by side in no piece at all, no merge crosses from one to the other.
- User-defined pieces are found first, the longest before others, from the left. So a run of one
  character is taken from its start in whole multiples of the longest such piece of it.

Pure text; knows nothing of token ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class TextSplitter:
    """Where texts can be cut under a vocabulary. `names` are the texts of all of its pieces."""

    def __init__(self, names: Iterable[str], user_defined: Iterable[str]) -> None:
        self._inside: set[str] = set()  # two characters side by side in a piece
        self.longest = 1  # characters that one token stands for at most
        for name in names:
            self._inside.update(map(str.__add__, name, name[1:]))
            self.longest = max(self.longest, len(name))
        self._runs: dict[str, int] = {}  # character -> longest user-defined piece of it alone
        for name in user_defined:
            if name and name == name[0] * len(name):
                self._runs[name[0]] = max(len(name), self._runs.get(name[0], 0))

    def parts(self, text: str, size: int) -> Iterator[str]:
        """The text in parts of about `size` characters, longer where it cannot be cut."""
        start = 0
        while start < len(text):
            end = self._end(text, start, size)
            yield text[start:end]
            start = end

    def _end(self, text: str, start: int, size: int) -> int:
        """Where the part that begins at `start` ends."""
        if len(text) - start <= size:
            return len(text)
        run = self._runs.get(text[start], 0)
        whole = max(1, size // run) * run if run else 0
        # Pieces may reach into the run from behind it, but no farther than they are long.
        if run and text.startswith(text[start] * (whole + self.longest), start):
            return start + whole
        for at in range(start + size, start, -1):
            if text[at - 1 : at + 1] not in self._inside:
                return at
        for at in range(start + size + 1, len(text)):
            if text[at - 1 : at + 1] not in self._inside:
                return at
        return len(text)
