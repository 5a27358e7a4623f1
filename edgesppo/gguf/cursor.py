"""A cursor that reads numbers, counts and strings from the header of an untrusted GGUF file."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile
from edgesppo.gguf.strings import MAX_STRING

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.gguf.file_bytes import FileBytes

MAX_TEXT = 2_097_152  # bytes of all names and strings that are kept
MAX_HEAD = 67_108_864  # bytes; the header of a Gemma-2 file has 8 million
ADVICE = "; download or convert it again"


class Cursor:
    """A position in the header of a file of `size` bytes; every read is checked against both.

    `view` are the file's bytes or the first of them. Errors are BadModelFile.
    """

    def __init__(self, path: Path, view: FileBytes | bytes, size: int) -> None:
        self.path = path
        self.view = view
        self.end = min(len(view), MAX_HEAD)
        self.size = size
        self.at = 4  # after the magic
        self.text = 0

    def fail(self, what: str) -> BadModelFile:
        """The error to raise for a damaged file."""
        return BadModelFile(f"{self.path}: damaged GGUF: {what}{ADVICE}")

    def take(self, form: str) -> Any:
        """The next number, little-endian, in the format `form` of `struct`."""
        end = self.at + struct.calcsize("<" + form)
        if end > self.end:
            raise self.truncated()
        (value,) = struct.unpack("<" + form, self.view[self.at : end])
        self.at = end
        return value

    def count(self, what: str, limit: int) -> int:
        """The next length or count; raises if it is above `limit`."""
        value = int(self.take("Q"))
        if value > limit:
            raise self.fail(f"{what} is {value}, expected at most {limit}")
        return value

    def skip(self, n_bytes: int) -> None:
        """Skip bytes; raises if the header ends before."""
        if n_bytes > self.end - self.at:
            raise self.truncated()
        self.at += n_bytes

    def truncated(self) -> BadModelFile:
        """The error to raise where the header is longer than the file or than MAX_HEAD."""
        if self.end < len(self.view):
            return self.fail(f"its header takes more than {MAX_HEAD} bytes")
        return self.fail(f"the file ends at byte {self.end} inside its header")

    def string(self, what: str, limit: int = MAX_STRING) -> str:
        """The next string, which must be UTF-8 and at most `limit` bytes long."""
        length = self.count(f"the length of {what}", limit)
        start = self.at
        self.skip(length)
        self.text += length
        if self.text > MAX_TEXT:
            raise self.fail(f"its names and strings take more than {MAX_TEXT} bytes")
        try:
            return self.view[start : self.at].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None
