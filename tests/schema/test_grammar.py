"""A grammar generates what satisfies its schema and nothing else; other schemas are refused."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import edgesppo
from edgesppo import schema
from edgesppo.schema import automaton, formats, limits, numbers, patterns
from edgesppo.schema.limits import Work
from tests.support.gbnf import MOST_OPEN, Reader
from tests.support.schema_cases import CASES, Case
from tests.support.schema_formats import FORMATS
from tests.support.schema_refused import REFUSED
from tests.support.sweeps import LONG


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


@settings(max_examples=300 if LONG else 40, deadline=None, derandomize=True)
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


@settings(max_examples=120 if LONG else 40, deadline=None, derandomize=True)
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
