"""A grammar generates what satisfies its schema and nothing else; other schemas are refused."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import tracemalloc
from typing import Any

import jsonschema
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import edgesppo
from edgesppo import schema
from edgesppo.schema import automaton, formats, limits, numbers, patterns
from edgesppo.schema.limits import Work
from tests.support.gbnf import Reader
from tests.support.schema_cases import CASES, FORMATS, REFUSED, Case
from tests.support.sweeps import LONG

# Ways of reading a text that may be open at once; long strings are counted in blocks.
MOST_OPEN = 12


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_grammar_generates_what_satisfies_the_schema_and_nothing_else(case: Case) -> None:
    reader = Reader(schema.grammar(case.schema))
    for text in case.valid:
        assert reader.reads(text), text
    for text in (*case.invalid, *case.unmade):
        assert not reader.reads(text), text
    assert reader.most_open <= MOST_OPEN


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cases_agree_with_a_validator(case: Case) -> None:
    validator = jsonschema.validators.validator_for(case.schema)
    if "draft 7" in case.name:
        validator = jsonschema.Draft7Validator
    for text in (*case.valid, *(text for text in case.unmade if "\\ud83d" not in text)):
        validator(case.schema).validate(json.loads(text))
    for text in case.invalid:
        assert not _fits(validator(case.schema), text), text


def _fits(validator: Any, text: str) -> bool:
    try:
        value = json.loads(text, parse_constant=int)
    except ValueError:
        return False
    return bool(validator.is_valid(value))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_whatever_a_grammar_generates_satisfies_its_schema(case: Case) -> None:
    _check_what_is_made(case.schema, random.Random(1), 30)


def _check_what_is_made(asked: Any, rng: random.Random, n: int) -> None:
    draft7 = isinstance(asked, dict) and isinstance(asked.get("items"), list)
    validator = (jsonschema.Draft7Validator if draft7 else jsonschema.Draft202012Validator)(asked)
    reader = Reader(schema.grammar(asked))
    for _ in range(n):
        text = reader.text(rng)
        value = json.loads(text)
        assert validator.is_valid(value), text


_leaves = st.sampled_from(
    [
        *({}, True, {"type": "null"}, {"type": "boolean"}, {"type": ["string", "integer"]}),
        *({"const": 1}, {"const": "ab"}, {"enum": ["a", "ab", 1, 2.5, None]}, {"minLength": 2}),
        *({"type": "string", "maxLength": 3}, {"type": "string", "pattern": "^a*b?$"}),
        *({"type": "integer", "minimum": -5, "maximum": 20}, {"type": "number", "minimum": 3}),
        *({"type": "number", "exclusiveMaximum": 7}, {"type": "array", "maxItems": 2}),
        *({"type": "object"}, {"required": ["a"]}, {"additionalProperties": False}, {"$ref": "#"}),
    ]
)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "ab", "é"])
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(names, inner, max_size=3)},
        optional={"required": st.lists(names, max_size=2), "additionalProperties": inner},
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array"), "items": inner},
        optional={"minItems": st.integers(0, 2), "maxItems": st.integers(1, 4)},
    )
    tuples = st.fixed_dictionaries(
        {"prefixItems": st.lists(inner, min_size=1, max_size=2)}, optional={"items": inner}
    )
    several = st.lists(inner, min_size=1, max_size=3)
    combined = st.sampled_from(["anyOf", "oneOf", "allOf"]).flatmap(
        lambda name: st.builds(lambda parts: {name: parts}, several)
    )
    beside = st.builds(lambda a, b: {**a, "anyOf": b}, objects, several)
    return st.one_of(objects, arrays, tuples, combined, beside)


@settings(max_examples=300 if LONG else 100, deadline=None, derandomize=True)
@given(st.recursive(_leaves, _grown, max_leaves=8), st.randoms())
def test_whatever_the_grammar_of_a_random_schema_generates_satisfies_it(
    asked: Any, rng: random.Random
) -> None:
    try:
        _check_what_is_made(asked, rng, 5)
    except edgesppo.UsageError:
        reject()


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_accepts_good_texts_and_refuses_bad_ones(name: str) -> None:
    reader = Reader(schema.grammar({"type": "string", "format": name}))
    good, bad = FORMATS[name]
    for text in good:
        assert reader.reads(json.dumps(text)), text
    for text in bad:
        assert not reader.reads(json.dumps(text)), text


@pytest.mark.parametrize(("asked", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_an_unsupported_schema_is_refused_with_its_position(asked: Any, message: str) -> None:
    with pytest.raises(edgesppo.UsageError, match=message) as caught:
        schema.grammar(asked)
    assert str(caught.value).startswith("schema, at #")
    assert "\n" not in str(caught.value)


def test_the_documentation_lists_exactly_the_supported_keywords() -> None:
    table = re.search(r"keyword +how\n(.*?)\n\n", schema.__doc__ or "", re.DOTALL)
    assert table
    names = " ".join(line[4:30] for line in table[1].splitlines())
    assert set(re.findall(r"[$\w]+", names)) == {*schema.SUPPORTED} - {"additionalItems"}
    assert "additionalItems" in table[1]


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
def test_a_hostile_schema_is_refused_in_bounded_work(name: str) -> None:
    with pytest.raises(edgesppo.UsageError) as caught:
        schema.grammar(HOSTILE[name])
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "asked",
    [
        {"properties": {"x" * 5_000: {}}, "additionalProperties": True},
        {"properties": {"x" * 50_000: {"enum": [[] for _ in range(3_000)]}}},
        {"properties": {"x" * 50_000: {"prefixItems": [{"const": i} for i in range(800)]}}},
    ],
    ids=["more names", "values below", "rules below"],
)
def test_a_long_name_costs_memory_once(asked: Any) -> None:
    tracemalloc.start()
    try:
        schema.grammar(asked)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
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


_PIECES = ["a", "b", "ab", "[ab]", "[^a]", ".", "(a|b)", "(?:ab|a)", "^", "$", "a|b", "\\d", "\\S"]
_SIGNS = ["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,}", "*?"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(_PIECES), st.sampled_from(_SIGNS)), max_size=5))
def test_a_patterns_automaton_agrees_with_re(parts: list[tuple[str, str]]) -> None:
    pattern = "".join(
        piece if piece in ("^", "$", "a|b") else f"(?:{piece}){sign}" for piece, sign in parts
    )
    # `$` of re also stands before a last line feed, which no text here has.
    dfa = patterns.automaton(pattern, Work())
    for length in range(5):
        for letters in itertools.product("ab1", repeat=length):
            text = "".join(letters)
            assert _runs(dfa, text) == bool(re.search(pattern, text)), (pattern, text)


def _runs(dfa: automaton.Dfa, text: str) -> bool:
    if not dfa.edges:
        return False
    state = 0
    for letter in text:
        targets = [
            target
            for letters, target in dfa.edges[state]
            if any(low <= ord(letter) <= high for low, high in letters)
        ]
        assert len(targets) <= 1
        if not targets:
            return False
        state = targets[0]
    return state in dfa.ends


def test_escapes_of_patterns_mean_what_they_say() -> None:
    for pattern, good, bad in [
        ("^\\x41\\u0042\\u{43}\\cJ\\t\\/\\.$", "ABC\n\t/.", "ABC\n\t/x"),
        ("^\\ud83d\\ude00$", "😀", "😁"),
        ("^[\\d\\-\\]^]+$", "1-]^", "x"),
        ("^[^\\W]$", "a", "-"),
        ("^\\w\\W\\s\\S$", "_- é", "_é x"),
        ("^(?<year>\\d{4})$", "2024", "202"),
        ("^[]$|^[^]$", "x", ""),
    ]:
        dfa = patterns.automaton(pattern, Work())
        assert _runs(dfa, good), pattern
        assert not _runs(dfa, bad), pattern


_decimals = st.decimals(-1_200, 1_200, allow_nan=False, places=2)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(_decimals, _decimals, st.booleans(), st.booleans(), st.booleans(), st.randoms())
def test_exactly_the_numbers_between_the_bounds_are_accepted(
    a: Any, b: Any, open_low: bool, open_high: bool, whole: bool, rng: random.Random
) -> None:
    low, high = min(a, b), max(a, b)
    if whole:
        low, high, open_low, open_high = round(low), round(high), False, False
        low, high = type(a)(low), type(a)(high)
    bounds = numbers.Bounds(low, high, open_low, open_high)
    dfa = numbers.between(bounds, whole=whole, work=Work())
    for _ in range(60):
        near = rng.choice([low, high, type(a)(rng.randint(-1_300, 1_300))])
        value = near + type(a)(rng.randint(-3, 3)).scaleb(rng.choice([0, -1, -2, -3]))
        value = value.to_integral_value() if whole else value
        text = f"{value:f}"
        if text.startswith("-0") and not text.strip("-0."):
            continue
        above = value > low or (value == low and not open_low)
        below = value < high or (value == high and not open_high)
        assert _runs(dfa, text) == (above and below), (text, bounds)


def test_one_sided_bounds_of_integers_have_no_other_side() -> None:
    reader = Reader(schema.grammar({"type": "integer", "minimum": 10**20}))
    assert reader.reads(str(10**20))
    assert reader.reads(str(7 * 10**20))
    assert not reader.reads(str(10**20 - 1))


def test_the_same_schema_gives_the_same_grammar() -> None:
    for case in CASES:
        assert schema.grammar(case.schema) == schema.grammar(case.schema)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (limits.MAX_BYTES + 1), "expected at most"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"{", "not JSON"),
        (b'{"const": NaN}', "NaN is not a JSON number"),
        (b'{"const": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_an_invalid_schema_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(edgesppo.UsageError, match=f"s.json: .*{message}"):
        schema.parse(data, "s.json")


def test_a_schema_file_may_begin_with_a_byte_order_mark() -> None:
    assert schema.parse(b'\xef\xbb\xbf{"type": "null"}', "s.json") == {"type": "null"}
