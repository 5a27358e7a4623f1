"""A schema as a document: JSON of a bounded size, with JSON pointers and `$ref` targets."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from edgesppo.errors import UsageError
from edgesppo.schema.limits import (
    MAX_BYTES,
    MAX_NESTING,
    MAX_NODES,
    MAX_SHOWN,
    quoted,
    schema_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BITS = 1_000


def parse(data: bytes, name: str) -> Any:
    """Parse the bytes of a schema file called `name`. Raises UsageError if they are not JSON."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"{name}: {len(data)} bytes or more, expected at most {MAX_BYTES}")
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise UsageError(
            f"{name}: nested too deeply, expected at most {MAX_NESTING} arrays and objects"
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except ValueError as error:
        raise UsageError(f"{name}: not JSON: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


class Document:
    """A checked copy of a schema that knows the JSON pointer of each array and object in it."""

    def __init__(self, schema: Any) -> None:
        self._pointers: dict[int, str] = {}
        self.root = self._copy(schema)

    def where(self, value: Any) -> str:
        """The JSON pointer of an array or object of this document; "" is the root.

        A long pointer is cut, as many values may be below a name of a megabyte.
        """
        return self._pointers.get(id(value), "")

    def at(self, value: Any, pointer: str) -> Any:
        """Register a constructed value under a JSON pointer; returns the value."""
        self._pointers[id(value)] = pointer
        return value

    def _copy(self, schema: Any) -> Any:
        """A copy without shared parts, so that each has one pointer; does not recurse."""
        box: list[Any] = [None]
        todo: list[tuple[Any, Any, Any, str, int]] = [(schema, box, 0, "", 0)]
        nodes, size = 1, 0
        while todo:
            value, parent, key, pointer, depth = todo.pop()
            size += _size(value, pointer)
            nodes += len(value) if isinstance(value, dict | list) else 0
            if nodes > MAX_NODES or size > MAX_BYTES:
                raise schema_error(
                    pointer, f"too large, expected at most {MAX_NODES} values in {MAX_BYTES} bytes"
                )
            if depth > MAX_NESTING:
                raise schema_error(
                    pointer, f"nested too deeply, expected at most {MAX_NESTING} levels"
                )
            if not isinstance(value, dict | list):
                parent[key] = value
                continue
            copy: Any = {} if isinstance(value, dict) else [None] * len(value)
            parent[key] = copy
            self._pointers[id(copy)] = pointer
            for name, child in _children(value, pointer):
                if isinstance(copy, dict):
                    copy[name] = None  # keeps the order
                todo.append((child, copy, name, _below(pointer, name), depth + 1))
        return box[0]

    def target(self, reference: Any, where: str) -> Any:
        """The value that `$ref` points to. Raises UsageError if it is not in this document."""
        if not isinstance(reference, str) or not (reference == "#" or reference[:2] == "#/"):
            raise schema_error(
                where,
                f"$ref is {quoted(reference)}, expected '#' or '#/...': only references into the "
                "schema itself are supported",
            )
        value = self.root
        for step in unquote(reference[1:]).split("/")[1:]:
            inner = value is not self.root and isinstance(value, dict)
            if inner and isinstance(value.get("$id"), str):  # references in it are relative to that
                raise schema_error(
                    where, f"$ref is {quoted(reference)}, which leads through an $id"
                )
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and name in value:
                value = value[name]
            elif isinstance(value, list) and name.isdecimal() and int(name[:9]) < len(value):
                value = value[int(name[:9])]
            else:
                raise schema_error(where, f"$ref is {quoted(reference)}, but there is nothing")
        return value


def _below(pointer: str, name: Any) -> str:
    if len(pointer) > MAX_SHOWN:
        return pointer
    step = str(name)[:MAX_SHOWN].replace("~", "~0").replace("/", "~1")
    return f"{pointer}/{step}"


def _children(value: Any, pointer: str) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, child in items:
        if isinstance(value, dict):
            _check_text(name, pointer)
        yield name, child


def _size(value: Any, pointer: str) -> int:
    """The approximate bytes of a value itself as JSON. Raises UsageError if it is not JSON."""
    if isinstance(value, dict):
        return 2 + sum(len(name) + 4 if isinstance(name, str) else 0 for name in value)
    if value is None or isinstance(value, bool | list):
        return 5
    if isinstance(value, str):
        _check_text(value, pointer)
        return len(value) + 2
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise schema_error(pointer, f"an integer of {value.bit_length()} bits is too large")
        return 20
    if isinstance(value, float):
        if math.isfinite(value):
            return 20
        raise schema_error(pointer, f"{value} is not a JSON number")
    raise schema_error(pointer, f"{quoted(value)} is not a JSON value")


def _check_text(text: Any, pointer: str) -> None:
    if not isinstance(text, str):
        raise schema_error(pointer, f"the name {quoted(text)} is not a string")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise schema_error(
            pointer, f"{quoted(text)} contains a lone surrogate, which is half a character"
        )
