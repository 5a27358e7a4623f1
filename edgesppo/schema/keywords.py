"""The keywords of JSON Schema: those that are supported, and those that do not restrict values.

All others are refused with their name, so that no part of a schema is silently ignored.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.schema import numbers
from edgesppo.schema.formats import FORMATS
from edgesppo.schema.limits import MAX_ITEMS, MAX_LENGTH, quoted, schema_error
from edgesppo.schema.pattern_parser import Parser

if TYPE_CHECKING:
    from collections.abc import Iterable

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

# keyword -> the types that it applies to
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
_CHECKED_ONLY = ("$defs", "definitions", "contentMediaType")  # do not restrict values
COMBINING = ("$ref", "allOf", "anyOf", "oneOf")
SUPPORTED = ("type", "enum", "const", *OF_TYPE, *COMBINING, *_CHECKED_ONLY)
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
_LARGEST = 1e40  # larger bounds are not followed
_OF_STRINGS = ("format", "contentEncoding", "contentMediaType")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "enum")
_MAPS = ("properties", "$defs", "definitions")
_SCHEMAS = ("additionalProperties", "additionalItems")


def check(schema: Any, where: str) -> dict[str, Any]:
    """The keywords that restrict values. Raises UsageError for unsupported ones."""
    if schema is True:
        return {}
    if schema is False:
        return {"enum": []}
    if not isinstance(schema, dict):
        raise schema_error(
            where, f"{quoted(schema)} is not a schema, expected an object or a boolean"
        )
    restricting = {}
    for name, value in schema.items():
        if name in ANNOTATIONS or name.startswith("x-"):
            if name == "$id" and where:
                raise schema_error(where, "$id below the root is not supported; remove it")
            continue
        if name not in SUPPORTED:
            raise schema_error(
                where,
                f"the keyword {quoted(name)} is not supported; "
                f"supported are {', '.join(SUPPORTED)}",
            )
        if name in _OF_STRINGS and not _may_be_string(schema):
            continue  # "int32" and the like: JSON does not distinguish them
        _check_value(name, value, where)
        if name not in _CHECKED_ONLY:
            restricting[name] = value
    return restricting


def moved(schema: Any, pointer: str) -> Any:
    """A valid schema as a part of another one, at that JSON pointer: its references lead there."""
    if isinstance(schema, list):
        return [moved(inner, pointer) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    copy: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "$ref" and isinstance(value, str):
            copy[name] = f"#{pointer}{value[1:]}"
        elif name in _MAPS and isinstance(value, dict):
            copy[name] = {key: moved(inner, pointer) for key, inner in value.items()}
        elif name in ("enum", "const", *ANNOTATIONS):
            copy[name] = value
        else:
            copy[name] = moved(value, pointer)
    copy.pop("$id", None)  # only the root may have one
    return copy


def loosened(schema: Any) -> Any:
    """The same schema without what is not supported: keywords, formats and patterns.

    What it allows need not satisfy the schema. Names that match `patternProperties` stay possible.
    """
    if isinstance(schema, list):
        return [loosened(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    copy: dict[str, Any] = {}
    for name, value in schema.items():
        if name in ("enum", "const", *ANNOTATIONS) or name.startswith("x-"):
            copy[name] = value
        elif name in _MAPS and isinstance(value, dict):
            copy[name] = {key: loosened(inner) for key, inner in value.items()}
        elif name in SUPPORTED and not _is_unsupported(name, value, schema):
            copy["anyOf" if name == "oneOf" else name] = loosened(value)
    named = schema.get("patternProperties")
    if isinstance(named, dict) and named:
        values = [loosened(inner) for inner in named.values()]
        is_alone = len(values) == 1 and schema.get("additionalProperties", False) is False
        copy["additionalProperties"] = values[0] if is_alone else True
    return copy


def _is_unsupported(name: str, value: Any, schema: dict[str, Any]) -> bool:
    """Whether a supported keyword has a value, or a place, in which a grammar cannot follow it."""
    if name in OF_TYPE and ("enum" in schema or "const" in schema):
        return True  # those tell the values
    try:
        if name in BOUNDS and isinstance(value, int | float):
            if isinstance(value, bool) or not abs(value) < _LARGEST:
                return True  # true is of draft 4
            whole = schema.get("type") == "integer"
            numbers.check(Decimal(str(value)), name, whole=whole, where="")
        if name == "pattern" and isinstance(value, str):
            Parser(value, "").parse()
    except UsageError:
        return True
    if name in _COUNTS and isinstance(value, int | float):
        return value > _COUNTS[name]
    if name in _OF_STRINGS and isinstance(value, str):
        return (name == "format" and value not in FORMATS) or bool(_expected(name, value))
    return False


def _may_be_string(schema: dict[str, Any]) -> bool:
    types = schema.get("type", "string")
    return types == "string" or (isinstance(types, list) and "string" in types)


def _check_value(name: str, value: Any, where: str) -> None:
    expected = _expected(name, value)
    if expected:
        raise schema_error(where, f"{name} is {quoted(value)}, expected {expected}")
    if name == "format" and value not in FORMATS:
        raise schema_error(
            where,
            f"the format {quoted(value)} is not supported; supported are {', '.join(FORMATS)}",
        )


def _expected(name: str, value: Any) -> str | None:
    """What the value of a keyword should be; None if it is that."""
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
        return None if value == "base64" else "base64, the only supported one"
    if name == "contentMediaType":
        text = isinstance(value, str) and value.startswith("text/")
        return None if text else "text/..., the only supported ones"
    return None
