"""Read untrusted JSON files: bounded in size, checked by type and range.

Every wrong value becomes a BadCheckpoint of one line that names the file, the key, the value found
and the value expected.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from edgesppo.errors import BadCheckpoint, SourceUnreadable
from edgesppo.system.content import HEAD, mistaken_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Python makes up to 45 bytes of one byte of JSON; no file of a Gemma-2 checkpoint has 1 MB of it.
MAX_JSON = 4 << 20
MAX_ANSWER = 4  # keys of a server's answer that was saved in place of a file


def show(value: object, limit: int = 80) -> str:
    """Format a value for a message: quoted, on one line, at most `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def is_text(text: str) -> bool:
    """Whether a string can be encoded as UTF-8: JSON allows lone surrogates, UTF-8 does not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; BadCheckpoint if missing or longer."""
    try:
        if path.exists() and not path.is_file():
            raise BadCheckpoint(f"{path} is {kind_of(path)}; expected a file")
        if not path.is_file():
            raise BadCheckpoint(f"{path.parent} has no {path.name}; is the download complete?")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    return check_length(data, limit, str(path))


def check_length(data: bytes, limit: int, where: str) -> bytes:
    """Return the data unchanged; BadCheckpoint if it is longer than `limit` bytes."""
    if len(data) > limit:
        raise BadCheckpoint(f"{where} is longer than {limit:,} bytes, the most that is read")
    return data


def check_content(head: bytes, where: str) -> None:
    """Raise BadCheckpoint if a file begins as another kind of file does, such as a web page."""
    mistaken = mistaken_for(head[:HEAD])
    if mistaken is not None:
        raise BadCheckpoint(f"{where} is {mistaken}")


def kind_of(path: Path) -> str:
    """What a path that exists is."""
    if path.is_dir():
        return "a folder"
    return "a file" if path.is_file() else "a pipe or a device"


def unreadable(path: Path, error: OSError) -> SourceUnreadable:
    """Turn an OSError from reading `path` into the error to raise."""
    return SourceUnreadable(f"cannot read {path}: {error.strerror or error}")


def name_exists(path: Path) -> bool:
    """Whether the name exists; a dangling symbolic link, as a cut-off download leaves, counts."""
    return path.is_symlink() or path.exists()


def parse_json(data: bytes, where: str) -> JsonObject:
    """Parse a JSON object from UTF-8 `data`; `where` names it in messages.

    Raises BadCheckpoint on a repeated key, NaN or Infinity, or nesting beyond Python's limit.
    """
    try:
        value = json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_unique_keys,
            parse_constant=_reject_constant,
        )
    except RecursionError:
        raise BadCheckpoint(f"{where} is nested too deeply") from None
    except ValueError as error:
        check_content(data, where)
        raise BadCheckpoint(f"{where} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{where} holds {_kind(value)}; expected a JSON object")
    if isinstance(value.get("error"), str) and len(value) <= MAX_ANSWER:
        check_content(data, where)
    return JsonObject(where, value)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {show(repeated)} appears twice")
    return values


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


class JsonObject:
    """A JSON object whose values are read by type and range; BadCheckpoint where one is wrong."""

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
        """The value at `key`, unchecked; None if it is missing."""
        return self._values.get(key)

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """The whole number at `key`, in [low, high]."""
        value = self._values.get(key, default)
        if type(value) is not int or not low <= value <= high:
            self.refuse(key, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """The number at `key`, in (low, high]; rejects infinities, which JSON writes as 1e999."""
        value = self._values.get(key, default)
        if type(value) not in (int, float) or value is None or not low < value <= high:
            self.refuse(key, f"a number above {low:g} and at most {high:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """The boolean at `key`; `default` if it is missing or null."""
        value = self._values.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            self.refuse(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """The string at `key`, encodable as UTF-8."""
        value = self._values.get(key, default)
        if type(value) is not str or not is_text(value):
            self.refuse(key, "a string")
        return value

    def items(self, key: str) -> list[Any]:
        """The list at `key`, its items unchecked."""
        value = self._values.get(key)
        if type(value) is not list:
            self.refuse(key, "a list")
        return value

    def object(self, key: str) -> JsonObject:
        """The JSON object at `key`."""
        value = self._values.get(key)
        if type(value) is not dict:
            self.refuse(key, "an object")
        return JsonObject(f"{self.where}: {show(key)}", value)

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise BadCheckpoint: the value at `key` is missing or not what was expected."""
        if key not in self._values:
            raise BadCheckpoint(f"{self.where} has no {show(key)}; expected {expected}")
        raise BadCheckpoint(
            f"{self.where}: {show(key)} is {show(self._values[key])}; expected {expected}"
        )
