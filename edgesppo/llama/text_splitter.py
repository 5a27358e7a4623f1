"""Split a long text into parts whose tokens, joined, are those of the whole text.

llama.cpp's tokenizer takes time that grows with the square of a text's length if many characters
are spelled in bytes, or many user-defined pieces are found. For a text in parts, the time grows
with its length. The tokens stay the same, for two reasons:

- Tokens are merged from neighbours, and every merge gives a piece of the vocabulary. If no piece
  contains two given characters side by side, no merge crosses from one to the other.
- User-defined pieces are matched first, from the left, the longest first. So a run of one
  character is consumed from its start in multiples of the longest such piece of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class TextSplitter:
    """Splits texts for one vocabulary.

    `names` are the texts of all of its pieces, `user_defined` those of its user-defined ones.
    """

    def __init__(self, names: Iterable[str], user_defined: Iterable[str]) -> None:
        self._inside: set[str] = set()  # pairs of characters that are neighbours in some piece
        self.longest = 1  # length of the longest piece, in characters
        for name in names:
            self._inside.update(map(str.__add__, name, name[1:]))
            self.longest = max(self.longest, len(name))
        # Character -> length of the longest user-defined piece that consists of it alone.
        self._runs: dict[str, int] = {}
        for name in user_defined:
            if name and name == name[0] * len(name):
                self._runs[name[0]] = max(len(name), self._runs.get(name[0], 0))

    def parts(self, text: str, size: int) -> Iterator[str]:
        """Parts of about `size` characters; longer ones where the text cannot be cut."""
        start = 0
        while start < len(text):
            end = self._end(text, start, size)
            yield text[start:end]
            start = end

    def _end(self, text: str, start: int, size: int) -> int:
        """The end of the part that begins at `start`."""
        if len(text) - start <= size:
            return len(text)
        run = self._runs.get(text[start], 0)
        whole = max(1, size // run) * run if run else 0
        # A piece that continues behind the run may reach back into it by its length.
        if run and text.startswith(text[start] * (whole + self.longest), start):
            return start + whole
        for at in range(start + size, start, -1):
            if text[at - 1 : at + 1] not in self._inside:
                return at
        for at in range(start + size + 1, len(text)):
            if text[at - 1 : at + 1] not in self._inside:
                return at
        return len(text)
