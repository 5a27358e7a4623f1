"""Read the text of a prompt: a file, or standard input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.system.fs import read_regular

if TYPE_CHECKING:
    from typing import BinaryIO

MAX_BYTES = 4_000_000  # more than any context holds
# The longer ones first: UTF-32's begins with UTF-16's.
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_LOOKED_AT = 400  # bytes, to tell UTF-16 and UTF-32 without a mark


def read_text(name: str, most: int | None = None) -> str:
    """The text of a file of at most `most` bytes, by default MAX_BYTES.

    Raises UsageError where it is longer, cannot be read or is not UTF-8 text.
    """
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            raise UsageError(f"{name} is a folder, expected a text file")
        if path.exists() and not path.is_file():
            raise UsageError(
                f"{name} is a pipe or a device, expected a text file; to send what a program "
                "writes: PROGRAM | edgesppo run"
            )
        limit = MAX_BYTES if most is None else most
        if path.stat().st_size > limit:
            raise _too_long(name, limit)
        return _decoded(read_regular(path, limit), name, limit)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from None
    except (RuntimeError, ValueError) as error:  # the home of an unknown user, a NUL in the name
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name!r}: {error}") from None


def read_stream(stream: BinaryIO, name: str) -> str:
    """The text of a stream up to its end; `name` is for messages. Raises UsageError and OSError."""
    return _decoded(stream.read(MAX_BYTES + 1), name, MAX_BYTES)


def _decoded(data: bytes, name: str, limit: int) -> str:
    if len(data) > limit:
        raise _too_long(name, limit)
    if fault := why_not_utf8(data):
        raise UsageError(f"{name} is not UTF-8 text: {fault}")
    return data.decode("utf-8-sig").replace("\r\n", "\n")


def _too_long(name: str, limit: int) -> UsageError:
    reason = "more than any context holds" if limit == MAX_BYTES else "the most that is read"
    return UsageError(f"{name} has more than {limit:,} bytes, {reason}")


def why_not_utf8(data: bytes) -> str | None:
    """Why bytes are not UTF-8 text, and what to do; None if they are."""
    if sign := sign_of_another_encoding(data):
        return f"{sign}; save it as UTF-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start : error.start + 1]
        return f"byte {byte!r} at position {error.start}; save it as UTF-8"
    return None


def sign_of_another_encoding(data: bytes) -> str | None:
    """What shows that the beginning of a text is UTF-16 or UTF-32, also without a mark; or None."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return f"it begins with the byte order mark of {encoding}, {mark.hex(' ')}"
    begin = data[:_LOOKED_AT]
    zeros = begin.count(0)
    if zeros > len(begin) * 2 // 3:
        return "it has three zero bytes beside every letter, as UTF-32 has"
    if zeros > len(begin) // 3:  # valid UTF-8, but with a NUL beside every letter
        return "it has a zero byte beside every letter, as UTF-16 has"
    return None
