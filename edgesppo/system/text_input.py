"""Read the text of a prompt: a file, or standard input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError

if TYPE_CHECKING:
    from typing import BinaryIO

MAX_BYTES = 4_000_000  # more than any context holds


def read_text(name: str) -> str:
    """The text of a file. Raises UsageError where it cannot be read or is not UTF-8 text."""
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            raise UsageError(f"{name} is a folder, expected a text file")
        with path.open("rb") as file:
            return read_stream(file, name)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from None
    except (RuntimeError, ValueError) as error:  # the home of an unknown user, a NUL in the name
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name!r}: {error}") from None


def read_stream(stream: BinaryIO, name: str) -> str:
    """The text of a stream up to its end; `name` is for messages. Raises UsageError and OSError."""
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(f"{name} has more than {MAX_BYTES:,} bytes, more than any context holds")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        byte = data[error.start : error.start + 1]
        raise UsageError(
            f"{name} is not UTF-8 text: byte {byte!r} at position {error.start}; save it as UTF-8"
        ) from None
