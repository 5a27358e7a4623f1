"""Owns reading a text that a person gives, a file or what is piped in, to be put into a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError

if TYPE_CHECKING:
    from typing import BinaryIO

MAX_BYTES = 4_000_000  # more than any context holds


def read_text(given: str) -> str:
    """The file's text. Raises UsageError, saying why, for what is no UTF-8 text file."""
    try:
        path = Path(given).expanduser()
        if path.is_dir():
            raise UsageError(f"{given} is a folder, expected a text file")
        with path.open("rb") as file:
            return read_stream(file, given)
    except OSError as error:
        raise UsageError(f"{given}: cannot be read: {error.strerror or error}") from None
    except (RuntimeError, ValueError) as error:  # an unknown user's home, a NUL in the name
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{given!r}: {error}") from None


def read_stream(stream: BinaryIO, name: str) -> str:
    """What comes of a stream up to its end, as text. Raises UsageError, naming it, and OSError."""
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(f"{name} has more than {MAX_BYTES:,} bytes: no context holds that")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        byte = data[error.start : error.start + 1]
        raise UsageError(
            f"{name} is no UTF-8 text: byte {byte!r} at position {error.start}; re-encode it"
        ) from None
