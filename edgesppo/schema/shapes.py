"""Expand `$ref`, `allOf`, `anyOf` and `oneOf` into a list of alternative shapes.

A shape is a schema without these keywords. A value satisfies the schema if it satisfies one of its
shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.schema import keywords
from edgesppo.schema.formats import BASE64
from edgesppo.schema.keywords import COMBINING, OF_TYPE, TYPES
from edgesppo.schema.limits import MAX_ALTERNATIVES, schema_error

if TYPE_CHECKING:
    from collections.abc import Hashable

    from edgesppo.schema.document import Document
    from edgesppo.schema.limits import Work

# Like a schema, but "type" is a list, "pattern" and "format" are lists of all that must match, and
# a list of items is "prefixItems" followed by "items".
Shape = dict[str, Any]

_MOST_REFERENCES = 100  # followed in a row
_LARGER = ("minItems", "minLength", "minimum", "exclusiveMinimum")
_SMALLER = ("maxItems", "maxLength", "maximum", "exclusiveMaximum")
_MAX_COMPARED = 6  # nested objects that are compared to tell alternatives of oneOf apart


class Shapes:
    """Expands the schemas of one document into shapes."""

    def __init__(self, document: Document, work: Work) -> None:
        self._document = document
        self._work = work

    def of(self, schema: Any, trail: tuple[int, ...] = ()) -> list[Shape]:
        """The shapes of a schema; none if nothing satisfies it."""
        where = self._document.where(schema)
        self._work.spend(1 + _breadth(schema) // 16)
        if isinstance(schema, dict):
            if id(schema) in trail:
                raise schema_error(where, "it refers directly to itself")
            if len(trail) > _MOST_REFERENCES:
                raise schema_error(
                    where,
                    f"more than {_MOST_REFERENCES} nested references and combinations",
                )
            trail = (*trail, id(schema))
        restricting = keywords.check(schema, where)
        if "const" in restricting and "enum" in restricting:
            self._work.spend(_weight(restricting["const"]) + _weight(restricting["enum"]))
        shapes = [_normal({k: v for k, v in restricting.items() if k not in COMBINING}, where)]
        if "$ref" in restricting:
            target = self._document.target(restricting["$ref"], where)
            shapes = self._times(shapes, self.of(target, trail), where)
        for part in restricting.get("allOf", ()):
            shapes = self._times(shapes, self.of(part, trail), where)
        for name in ("anyOf", "oneOf"):
            if name in restricting:
                parts = [self.of(part, trail) for part in restricting[name]]
                if name == "oneOf":
                    self._check_one_of(parts, where)
                shapes = self._times(shapes, [shape for part in parts for shape in part], where)
        return shapes

    def _times(self, a: list[Shape], b: list[Shape], where: str) -> list[Shape]:
        if len(a) * len(b) > MAX_ALTERNATIVES:
            raise schema_error(
                where,
                f"{len(a) * len(b)} alternatives, expected at most {MAX_ALTERNATIVES}",
            )
        self._work.spend(len(a) * len(b))
        both = [self._merged(one, other, where) for one in a for other in b]
        return [shape for shape in both if shape is not None]

    def _merged(self, a: Shape, b: Shape, where: str) -> Shape | None:
        """The shape of what satisfies both; None if their types show that nothing does."""
        if not a or not b:
            return a or b
        self._work.spend((_breadth(a) + _breadth(b)) // 16)
        shape = {**b, **a}
        for name in a.keys() & b.keys():
            if name in _LARGER or name in _SMALLER:
                shape[name] = (max if name in _LARGER else min)(a[name], b[name])
            elif name in ("pattern", "format", "required"):
                shape[name] = list(dict.fromkeys([*a[name], *b[name]]))
        if "type" in a and "type" in b:
            shape["type"] = _common_types(a["type"], b["type"])
            if not shape["type"]:
                return None
        if "enum" in a and "enum" in b:
            self._work.spend(_weight(a["enum"]) + _weight(b["enum"]))
            known = {same(value) for value in b["enum"]}
            shape["enum"] = [value for value in a["enum"] if same(value) in known]
        self._merge_properties(shape, a, b, where)
        self._merge_items(shape, a, b, where)
        return shape

    def _merge_properties(self, shape: Shape, a: Shape, b: Shape, where: str) -> None:
        names = dict.fromkeys([*a.get("properties", ()), *b.get("properties", ())])
        if names:
            shape["properties"] = {
                name: self._both(_property(a, name), _property(b, name), where) for name in names
            }
        if "additionalProperties" in shape:
            extra, other = (s.get("additionalProperties", True) for s in (a, b))
            shape["additionalProperties"] = self._both(extra, other, where)

    def _merge_items(self, shape: Shape, a: Shape, b: Shape, where: str) -> None:
        n = max(len(a.get("prefixItems", ())), len(b.get("prefixItems", ())))
        if n:
            shape["prefixItems"] = [
                self._both(_item(a, index), _item(b, index), where) for index in range(n)
            ]
        if "items" in shape:
            shape["items"] = self._both(a.get("items", True), b.get("items", True), where)

    def _both(self, a: Any, b: Any, where: str) -> Any:
        """A schema for what satisfies both."""
        if a is True or b is True:
            return b if a is True else a
        if a is False or b is False:
            return False
        self._work.spend(2)
        return self._document.at({"allOf": [a, b]}, self._document.where(a) or where)

    def _check_one_of(self, parts: list[list[Shape]], where: str) -> None:
        """Raise UsageError unless the alternatives exclude each other."""
        for index, part in enumerate(parts):
            for other in range(len(parts)):
                if index != other and not self._excludes(part, parts[other], 0):
                    raise schema_error(
                        where,
                        f"oneOf is supported if types or consts make its alternatives exclusive, "
                        f"but {index} and {other} can match the same value; use anyOf",
                    )

    def _excludes(self, made: list[Shape], other: list[Shape], depth: int) -> bool:
        """Whether no value that is generated from some shapes can satisfy one of the others."""
        self._work.spend(len(made) * len(other))
        return all(
            self._excludes_as(kind, one, two, depth)
            for one in made
            for two in other
            for kind in types_of(one)
        )

    def _excludes_as(self, kind: str, made: Shape, other: Shape, depth: int) -> bool:
        accepted = types_of(other) if "enum" in other else other.get("type", TYPES)
        if kind not in accepted and not (
            kind in ("integer", "number") and {"integer", "number"} & set(accepted)
        ):
            return True
        if "enum" in made and "enum" in other:
            self._work.spend(_weight(made["enum"]) + _weight(other["enum"]))
            known = {same(value) for value in other["enum"]}
            return not any(same(value) in known for value in made["enum"])
        if kind != "object" or depth > _MAX_COMPARED or "enum" in made or "enum" in other:
            return False
        if made.get("additionalProperties", False) is False:
            declared = {*made.get("properties", ()), *made.get("required", ())}
            if any(name not in declared for name in other.get("required", ())):
                return True
        return any(
            self._excludes(
                self.of(_property(made, name)), self.of(_property(other, name)), depth + 1
            )
            for name in made.get("required", ())
            if _property(other, name) is not True
        )


def types_of(shape: Shape) -> list[str]:
    """The types of the values of a shape; "number" includes "integer".

    Without `type`, these are the types of `enum`, else those that its keywords apply to, else all.
    """
    if "enum" in shape:
        found = {_type_of(value) for value in shape["enum"] if _has_type(value, shape)}
        return [name for name in TYPES if name in found]
    found = set(shape.get("type", ()))
    if not found:
        applied_to = {name for keyword in shape for name in OF_TYPE.get(keyword, ())}
        found = applied_to or set(TYPES)
    if "number" in found:
        found -= {"integer"}
    return [name for name in TYPES if name in found]


def values_of(shape: Shape) -> list[Any]:
    """The values of a shape's `enum` that have one of the shape's types."""
    return [value for value in shape["enum"] if _has_type(value, shape)]


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _has_type(value: Any, shape: Shape) -> bool:
    if "type" not in shape:
        return True
    kind = _type_of(value)
    whole = kind == "number" and value.is_integer()
    accepted = {kind} | ({"number"} if kind == "integer" else {"integer"} if whole else set())
    return bool(accepted & set(shape["type"]))


def same(value: Any) -> Hashable:
    """A key that is equal for values equal in JSON Schema: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, list):
        return ("array", *(same(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((name, same(item)) for name, item in value.items()))
    return ("boolean" if isinstance(value, bool) else "", value)


def _breadth(schema: Any) -> int:
    """The number of parts of a schema that are processed one by one."""
    if not isinstance(schema, dict):
        return 0
    return sum(len(value) if isinstance(value, dict | list) else 1 for value in schema.values())


def _weight(value: Any) -> int:
    """The number of values in a value, including itself."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 1
    return 1 + sum(map(_weight, value))


def _normal(restricting: dict[str, Any], where: str) -> Shape:
    shape = dict(restricting)
    if "type" in shape:
        types = shape["type"]
        shape["type"] = [types] if isinstance(types, str) else list(dict.fromkeys(types))
    if "const" in shape:
        const = shape.pop("const")
        wanted = same(const)
        shape["enum"] = [value for value in shape.get("enum", [const]) if same(value) == wanted]
    for name in ("pattern", "format"):
        if name in shape:
            shape[name] = [shape[name]]
    if shape.pop("contentEncoding", None):
        shape["pattern"] = [*shape.get("pattern", ()), BASE64]
    if isinstance(shape.get("items"), list):
        if "prefixItems" in shape:
            raise schema_error(where, "items is a list beside prefixItems; use only one of them")
        shape["prefixItems"] = shape.pop("items")
        if "additionalItems" in shape:
            shape["items"] = shape["additionalItems"]
    shape.pop("additionalItems", None)
    return shape


def _common_types(a: list[str], b: list[str]) -> list[str]:
    found = [name for name in a if name in b]
    for one, other in ((a, b), (b, a)):
        if "integer" in one and "number" in other and not {"integer", "number"} & set(found):
            found.append("integer")
    return found


def _property(shape: Shape, name: str) -> Any:
    properties = shape.get("properties", {})
    return properties[name] if name in properties else shape.get("additionalProperties", True)


def _item(shape: Shape, index: int) -> Any:
    prefix = shape.get("prefixItems", ())
    return prefix[index] if index < len(prefix) else shape.get("items", True)
