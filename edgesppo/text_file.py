"""Owns reading a text file that a person names, to be put into a prompt."""

from __future__ import annotations

from pathlib import Path

from edgesppo.errors import UsageError

MAX_BYTES = 4_000_000  # more than any context holds


def read_text(given: str) -> str:
    """The file's text. Raises UsageError, saying why, for what is no UTF-8 text file."""
    try:
        path = Path(given).expanduser()
        if path.is_dir():
            raise UsageError(f"{given} is a folder, expected a text file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"{given} has more than {MAX_BYTES:,} bytes: no context holds that")
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        byte = data[error.start : error.start + 1]
        raise UsageError(
            f"{given} is no UTF-8 text: byte {byte!r} at position {error.start}; re-encode it"
        ) from None
    except OSError as error:
        raise UsageError(f"{given}: cannot be read: {error.strerror or error}") from None
    except (RuntimeError, ValueError) as error:  # an unknown user's home, a NUL in the name
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{given!r}: {error}") from None
