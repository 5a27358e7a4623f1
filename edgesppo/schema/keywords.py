"""Owns which keywords there are: those that are honoured, and those that say nothing of values.

Everything else is refused by name, so that no part of a schema is silently left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.schema.formats import FORMATS
from edgesppo.schema.limits import MAX_ITEMS, MAX_LENGTH, refused, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

# keyword -> the types that it says something about
OF_TYPE = {
    "properties": ("object",),
    "required": ("object",),
    "additionalProperties": ("object",),
    "items": ("array",),
    "prefixItems": ("array",),
    "additionalItems": ("array",),
    "minItems": ("array",),
    "maxItems": ("array",),
    "minLength": ("string",),
    "maxLength": ("string",),
    "pattern": ("string",),
    "format": ("string",),
    "contentEncoding": ("string",),
    "minimum": ("integer", "number"),
    "maximum": ("integer", "number"),
    "exclusiveMinimum": ("integer", "number"),
    "exclusiveMaximum": ("integer", "number"),
}
_SAY_NOTHING = ("$defs", "definitions", "contentMediaType")  # but their values are checked
COMBINING = ("$ref", "allOf", "anyOf", "oneOf")
HONOURED = ("type", "enum", "const", *OF_TYPE, *COMBINING, *_SAY_NOTHING)
ANNOTATIONS = (
    *("$schema", "$id", "$comment", "$anchor", "title", "description", "default", "examples"),
    *("deprecated", "readOnly", "writeOnly"),
    "discriminator",  # of OpenAPI: a hint beside oneOf
)
_COUNTS = {
    "minItems": MAX_ITEMS,
    "maxItems": MAX_ITEMS,
    "minLength": MAX_LENGTH,
    "maxLength": MAX_LENGTH,
}
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_OF_STRINGS = ("format", "contentEncoding", "contentMediaType")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "enum")
_MAPS = ("properties", "$defs", "definitions")
_SCHEMAS = ("additionalProperties", "additionalItems")


def check(schema: Any, where: str) -> dict[str, Any]:
    """The keywords of a schema that say something of values. UsageError for any other."""
    if schema is True:
        return {}
    if schema is False:
        return {"enum": []}
    if not isinstance(schema, dict):
        raise refused(where, f"{shown(schema)} is no schema, expected an object or a boolean")
    found = {}
    for name, value in schema.items():
        if name in ANNOTATIONS or name.startswith("x-"):
            if name == "$id" and where:
                raise refused(where, "$id below the root is not honoured; leave it out")
            continue
        if name not in HONOURED:
            raise refused(
                where,
                f"the keyword {shown(name)} is not honoured; honoured are {', '.join(HONOURED)}",
            )
        if name in _OF_STRINGS and not _may_be_string(schema):
            continue  # "int32" and the like: says nothing of what JSON can tell apart
        _check_value(name, value, where)
        if name not in _SAY_NOTHING:
            found[name] = value
    return found


def _may_be_string(schema: dict[str, Any]) -> bool:
    types = schema.get("type", "string")
    return types == "string" or (isinstance(types, list) and "string" in types)


def _check_value(name: str, value: Any, where: str) -> None:
    expected = _expected(name, value)
    if expected:
        raise refused(where, f"{name} is {shown(value)}, expected {expected}")
    if name == "format" and value not in FORMATS:
        raise refused(
            where, f"the format {shown(value)} is not honoured; honoured are {', '.join(FORMATS)}"
        )


def _expected(name: str, value: Any) -> str | None:
    """What should have been there; None when it is."""
    if name in _COUNTS:
        most = _COUNTS[name]
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
        return None if whole and 0 <= value <= most else f"a whole number from 0 to {most}"
    if name in BOUNDS:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number else "a number"
    if name in _LISTS:
        full = isinstance(value, list) and bool(value)
        if name == "enum":
            return None if full else "a list that is not empty"
        return None if full and _are_schemas(value) else "a list of schemas that is not empty"
    if name in _MAPS:
        schemas = isinstance(value, dict) and _are_schemas(value.values())
        return None if schemas else "an object that holds schemas"
    if name in _SCHEMAS:
        return None if isinstance(value, dict | bool) else "a schema"
    return _expected_otherwise(name, value)


def _are_schemas(values: Iterable[Any]) -> bool:
    return all(isinstance(value, dict | bool) for value in values)


def _expected_otherwise(name: str, value: Any) -> str | None:
    if name == "items":
        schemas = _are_schemas(value if isinstance(value, list) else [value])
        return None if schemas else "a schema or a list of them"
    if name == "type":
        names = value if isinstance(value, list) else [value]
        known = names and all(isinstance(word, str) and word in TYPES for word in names)
        return None if known else f"one or more of {', '.join(TYPES)}"
    if name == "required":
        strings = isinstance(value, list) and all(isinstance(word, str) for word in value)
        return None if strings else "a list of names"
    if name in ("pattern", "format"):
        return None if isinstance(value, str) else "a string"
    if name == "contentEncoding":
        return None if value == "base64" else "base64, as no other is honoured"
    if name == "contentMediaType":
        text = isinstance(value, str) and value.startswith("text/")
        return None if text else "text/..., as no other is honoured"
    return None
