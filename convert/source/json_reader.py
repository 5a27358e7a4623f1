"""Owns the reading of JSON that nobody vouches for: bounded, typed, named in every complaint.

Knows nothing of checkpoints or models: only that a wrong value must end as one readable line.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from edgesppo.errors import BadCheckpoint, SourceUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Python makes up to 45 bytes of one byte of JSON; no file of a Gemma-2 checkpoint has 1 MB of it.
MAX_JSON = 4 << 20


def show(value: object, limit: int = 80) -> str:
    """The value as it may stand in a message: quoted, on one line, never long."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON can smuggle in halves of surrogate pairs."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_bytes(path: Path, limit: int) -> bytes:
    """The whole of a regular file that may not be longer than `limit`."""
    try:
        if not path.is_file():
            raise BadCheckpoint(f"{path.parent} has no {path.name}; is the download complete?")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    return check_length(data, limit, str(path))


def check_length(data: bytes, limit: int, where: str) -> bytes:
    """The data, where it is no longer than `limit`."""
    if len(data) > limit:
        raise BadCheckpoint(f"{where} is longer than {limit:,} bytes, the most that makes sense")
    return data


def unreadable(path: Path, error: OSError) -> SourceUnreadable:
    """What a failing read means to a person."""
    return SourceUnreadable(f"cannot read {path}: {error.strerror or error}")


def is_there(path: Path) -> bool:
    """Whether there is such a name, be it a symbolic link to nothing (a download cut off)."""
    return path.is_symlink() or path.exists()


def parse_json(data: bytes, where: str) -> JsonObject:
    """The JSON object in `data`; no key twice, no NaN, no nesting beyond Python's own limit."""
    try:
        value = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except RecursionError:
        raise BadCheckpoint(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise BadCheckpoint(f"{where} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{where} holds {_kind(value)}, expected a JSON object")
    return JsonObject(where, value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {show(twice)} stands twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a flag", type(None): "null"}
    return names.get(type(value), "a number")


class JsonObject:
    """A JSON object whose every value is asked for by type and range."""

    def __init__(self, where: str, values: dict[str, Any]) -> None:
        self.where = where
        self._values = values

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def raw(self, key: str) -> Any:
        """The value as JSON gave it, None where it is missing."""
        return self._values.get(key)

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number in [low, high]."""
        value = self._values.get(key, default)
        if type(value) is not int or not low <= value <= high:
            self.refuse(key, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A number in (low, high]; 1e999, which JSON allows, is none."""
        value = self._values.get(key, default)
        if type(value) not in (int, float) or value is None or not low < value <= high:
            self.refuse(key, f"a number above {low:g} and at most {high:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false; null counts as missing."""
        value = self._values.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            self.refuse(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text."""
        value = self._values.get(key, default)
        if type(value) is not str or not is_text(value):
            self.refuse(key, "a text")
        return value

    def items(self, key: str) -> list[Any]:
        """A list."""
        value = self._values.get(key)
        if type(value) is not list:
            self.refuse(key, "a list")
        return value

    def object(self, key: str) -> JsonObject:
        """An object within this one."""
        value = self._values.get(key)
        if type(value) is not dict:
            self.refuse(key, "an object")
        return JsonObject(f"{self.where}: {show(key)}", value)

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Say that the value at `key` is not what was expected."""
        if key not in self._values:
            raise BadCheckpoint(f"{self.where} has no {show(key)}; expected {expected}")
        raise BadCheckpoint(
            f"{self.where}: {show(key)} is {show(self._values[key])}; expected {expected}"
        )
