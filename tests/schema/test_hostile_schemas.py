"""A schema that is made to be costly is refused in bounded work, or costs little."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import pytest

import edgesppo
from edgesppo import schema
from edgesppo.schema import limits
from tests.support.gbnf import MOST_OPEN, Reader
from tests.support.sweeps import LONG


def _nested(n: int) -> Any:
    found: Any = {}
    for _ in range(n):
        found = {"items": found}
    return found


def _doubled(n: int, name: str) -> Any:
    """Definitions that each refer to the next one twice."""
    defs: dict[str, Any] = {
        f"d{i}": {name: [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
        for i in range(n)
    }
    return {"$defs": {**defs, f"d{n}": {"type": "null"}}, "$ref": "#/$defs/d0"}


def _alike(n: int) -> Any:
    """Alternatives with an endless common beginning, nested n times."""
    found: Any = {"type": "string"}
    for _ in range(n):
        array = {"type": "array", "items": found}
        found = {"anyOf": [array, {**array, "minItems": 1}]}
    return found


_CIRCLE: dict[str, Any] = {}
_CIRCLE["items"] = _CIRCLE
_SHARED: Any = {"type": "string"}
for _ in range(40):
    _SHARED = {"allOf": [_SHARED, _SHARED]}
_MANY = range(100_000)
_MUCH: dict[str, Any] = {"enum": [[[] for _ in range(20_000)], 1]}


def _often(definition: Any, n: int) -> Any:
    return {"$defs": {"d": definition}, "allOf": [{"$ref": "#/$defs/d"} for _ in range(n)]}


HOSTILE = {
    "itself": {"$ref": "#"},
    "itself in anyOf": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    "itself in allOf": {"allOf": [{"$ref": "#"}]},
    "no end": {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    "no end in an object": {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "nothing fits": False,
    "deep": _nested(10_000),
    "a circle of objects": _CIRCLE,
    "shared objects": _SHARED,
    "doubled by allOf": _doubled(60, "allOf"),
    "doubled by anyOf": _doubled(60, "anyOf"),
    "doubled by anyOf, fewer": _doubled(20, "anyOf"),
    "references in a row": {
        "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(20_000)},
        "$ref": "#/$defs/d0",
    },
    "100,000 alternatives": {"anyOf": [{"const": i} for i in _MANY]},
    "100,000 values": {"enum": list(_MANY)},
    "100,000 properties": {"properties": {str(i): {} for i in _MANY}},
    "optional properties": {"properties": {f"property{i}": {} for i in range(3_000)}},
    "alike objects": {
        "anyOf": [{"properties": {f"p{i}": {} for i in range(n)}} for n in range(1, 200)]
    },
    "alike strings": {
        "anyOf": [{"type": "string", "maxLength": 10**n} for n in (4, 5, 6)],
    },
    "oneOf": {"oneOf": [{"properties": {"k": {"const": i}}} for i in range(999)]},
    "max items": {"type": "array", "maxItems": 10**9},
    "min items": {"type": "array", "minItems": 10**9},
    "a length beside a pattern": {"type": "string", "pattern": "a", "maxLength": 10**9},
    "states": {"type": "string", "pattern": ".*a.{30}"},
    "repetitions": {"type": "string", "pattern": "(((a{1000}){1000}){1000}){1000}"},
    "nothing repeated": {"type": "string", "pattern": "(){999999}"},
    "groups": {"type": "string", "pattern": "(" * 900 + ")" * 900},
    "a long pattern": {"type": "string", "pattern": "(" * 10_000},
    "two patterns": {
        "allOf": [{"type": "string", "pattern": p} for p in (".*a.{11}b", ".*c.{11}d", ".*e.{9}f")]
    },
    "a long text": {"const": "x" * 2_000_000},
    "a lone surrogate": {"const": "\ud800"},
    "a lone surrogate in a name": {"properties": {"\udc00": {}}},
    "NaN": {"const": math.nan},
    "infinity": {"maximum": math.inf},
    "a huge integer": {"const": 10**100_000},
    "a huge bound": {"type": "integer", "minimum": 10**60},
    "a tiny bound": {"type": "number", "minimum": 1e-300},
    "much in few values, compared often": {**_MUCH, "anyOf": [{"enum": [1]}] * 100},
    "much in few values, referred to often": _often(_MUCH, 100),
    "many types, referred to often": _often({"type": ["integer", "string"] * 10_000}, 1_000),
    "many names, referred to often": _often(
        {"type": "string", "properties": {str(i): True for i in range(20_000)}}, 150
    ),
    "no JSON": {"const": object()},
    "a set": {"enum": {1, 2}},
    "a number as name": {"properties": {1: {}}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_in_bounded_work(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not LONG:
        monkeypatch.setattr(limits, "MAX_WORK", limits.MAX_WORK // 10)
    with pytest.raises(edgesppo.UsageError) as caught:
        schema.grammar(HOSTILE[name])
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "asked",
    [
        {"properties": {"x" * 2_000: {}}, "additionalProperties": True},
        {"properties": {"x" * 20_000: {"enum": [[] for _ in range(1_000)]}}},
        {"properties": {"x" * 20_000: {"prefixItems": [{"const": i} for i in range(400)]}}},
    ],
    ids=["more names", "values below", "rules below"],
)
def test_a_long_name_costs_memory_once(asked: Any) -> None:
    tracemalloc.start()
    try:
        schema.grammar(asked)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


HARD = {
    "many items": {"items": {"items": {"items": {}, "minItems": 1000}, "minItems": 1000}},
    "deep": _nested(190),
    "alternatives that stay alike": _alike(9),
    "alike and recursive": {
        "anyOf": [
            {"type": "array", "items": {"$ref": "#"}},
            {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
            {"type": "null"},
        ]
    },
    "10,000 values": {"enum": [f"value {i}" for i in range(10_000)]},
    "1,000 alternatives": {"anyOf": [{"const": i} for i in range(1_000)]},
    "values that begin alike": {"enum": ["a" * n for n in range(1_000)]},
    "1,000 items": {"type": "array", "maxItems": 1_000, "minItems": 500},
    "10^9 characters": {"type": "string", "maxLength": 10**9, "minLength": 10**9 - 1},
    "stars": {"type": "string", "pattern": "^((((a*)*)*)*)*b(x+x+)+y(c|cc|ccc)+$"},
    "control characters": {"const": "\x00\x1b\x7f\u2028\u202e", "title": "\x1b[31m"},
    "names with everything": {"properties": {'"\\\n\x00[]-^': {"type": "null"}}},
    "a long text": {"const": "x" * 100_000},
}


@pytest.mark.parametrize("name", HARD)
def test_a_hard_supported_schema_costs_little_at_every_step(name: str) -> None:
    gbnf = schema.grammar(HARD[name])
    assert len(gbnf) < 40 * limits.MAX_RULES
    reader = Reader(gbnf)
    for text in ("[[[[[[[[", '"aaaaaaaaaaaaaaaaaaaaa', '"' + "a" * 150, "[1,1,1,1,1", '{"'):
        reader.reads(text)
    assert reader.most_open <= MOST_OPEN
