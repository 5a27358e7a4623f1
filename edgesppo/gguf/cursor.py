"""Owns the step through the head of a GGUF file that nobody vouches for: numbers, counts, texts.

Knows nothing of what they are for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile
from edgesppo.gguf.strings import MAX_STRING, release

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

MAX_TEXT = 2_097_152  # bytes of all names and texts that are kept
MAX_HEAD = 67_108_864  # bytes; a Gemma-2 file's has 8 million
_RELEASED = 1 << 20  # bytes between two times that what was read is let go of
AGAIN = "; fetch or convert it again"


class Cursor:
    """A cursor over the head of a file of `size` bytes; every read is checked against both."""

    def __init__(self, path: Path, view: mmap.mmap | bytes, size: int) -> None:
        self.path = path
        self.view = view
        self.end = min(len(view), MAX_HEAD)
        self.size = size
        self.at = 4  # behind the magic
        self.text = 0
        self.released = 0

    def fail(self, what: str) -> BadModelFile:
        """What to raise where the file is damaged."""
        return BadModelFile(f"{self.path}: damaged GGUF: {what}{AGAIN}")

    def take(self, form: str) -> Any:
        """The next number, of this form of `struct`, little-endian."""
        end = self.at + struct.calcsize("<" + form)
        if end > self.end:
            raise self.cut()
        (value,) = struct.unpack_from("<" + form, self.view, self.at)
        self.at = end
        return value

    def count(self, what: str, limit: int) -> int:
        """A length or a number of things, no more than makes sense."""
        value = int(self.take("Q"))
        if value > limit:
            raise self.fail(f"{what} is {value}, expected at most {limit}")
        return value

    def skip(self, n_bytes: int) -> None:
        """Step over bytes that are there."""
        if n_bytes > self.end - self.at:
            raise self.cut()
        self.at += n_bytes

    def cut(self) -> BadModelFile:
        """What to raise where the header does not end in time."""
        if self.end < len(self.view):
            return self.fail(f"its header takes more than {MAX_HEAD} bytes")
        return self.fail(f"the file ends at byte {self.end} inside its header")

    def release(self) -> None:
        """Now and then, let go of the memory of what was read."""
        if self.at - self.released > _RELEASED:
            release(self.view, self.released, self.at)
            self.released = self.at

    def string(self, what: str, limit: int = MAX_STRING) -> str:
        """A text, which must be UTF-8."""
        length = self.count(f"the length of {what}", limit)
        start = self.at
        self.skip(length)
        self.text += length
        if self.text > MAX_TEXT:
            raise self.fail(f"its names and texts take more than {MAX_TEXT} bytes")
        try:
            return self.view[start : self.at].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None
