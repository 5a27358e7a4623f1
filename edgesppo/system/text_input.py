"""Read the text of a prompt: a file, or standard input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError

if TYPE_CHECKING:
    from typing import BinaryIO

MAX_BYTES = 4_000_000  # more than any context holds
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LOOKED_AT = 400  # bytes, to tell UTF-16 without a mark


def read_text(name: str, most: int | None = None) -> str:
    """The text of a file of at most `most` bytes, by default MAX_BYTES.

    Raises UsageError where it is longer, cannot be read or is not UTF-8 text.
    """
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            raise UsageError(f"{name} is a folder, expected a text file")
        with path.open("rb") as file:
            return read_stream(file, name, most)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from None
    except (RuntimeError, ValueError) as error:  # the home of an unknown user, a NUL in the name
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name!r}: {error}") from None


def read_stream(stream: BinaryIO, name: str, most: int | None = None) -> str:
    """The text of a stream up to its end; `name` is for messages. Raises UsageError and OSError."""
    if most is None:
        most = MAX_BYTES
    data = stream.read(most + 1)
    if len(data) > most:
        reason = ", more than any context holds" if most == MAX_BYTES else ", the most that is read"
        raise UsageError(f"{name} has more than {most:,} bytes{reason}")
    if fault := why_not_utf8(data):
        raise UsageError(f"{name} is not UTF-8 text: {fault}")
    return data.decode("utf-8-sig").replace("\r\n", "\n")


def why_not_utf8(data: bytes) -> str | None:
    """Why bytes are not UTF-8 text, and what to do; None if they are."""
    if sign := sign_of_utf16(data):
        return f"{sign}; save it as UTF-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start : error.start + 1]
        return f"byte {byte!r} at position {error.start}; save it as UTF-8"
    return None


def sign_of_utf16(data: bytes) -> str | None:
    """What shows that the beginning of a text is UTF-16, with or without a mark; else None."""
    if data.startswith(_UTF16_MARKS):
        return f"it begins with the byte order mark of UTF-16, {data[:2].hex(' ')}"
    begin = data[:_LOOKED_AT]
    if begin.count(0) > len(begin) // 3:  # valid UTF-8, but with a NUL beside every letter
        return "it has a zero byte beside every letter, as UTF-16 has"
    return None
