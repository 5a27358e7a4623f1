"""The checker of public schema suites detects wrong grammars, and finds none of ours wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgesppo import schema
from tests.tools.schema_suite import judged, report, spellings

SUITE = os.environ.get("EDGESPPO_SCHEMA_SUITE")


def _case(asked: Any, *tests: tuple[Any, bool]) -> dict[str, Any]:
    listed = [{"description": "", "data": data, "valid": valid} for data, valid in tests]
    return {"description": f"about {asked}", "schema": asked, "tests": listed}


SMALL = _case({"type": "integer", "maximum": 7}, (7, True), (-3.0, True), (8, False), ("7", False))
PAIR = _case(
    {"properties": {"a": {"const": 1}, "b": {}}, "required": ["a"]},
    ({"b": 2, "a": 1}, True),
    ({"a": 1, "c": 1}, True),
    ({"b": 2, "a": 2}, False),
)


def test_a_right_grammar_is_accepted_and_its_texts_are_counted() -> None:
    verdict = judged(PAIR, "draft2020-12")
    assert verdict[1:] == ("accepted", "", 1, 2, 1)
    assert judged(SMALL, "draft7").n_made == 2


@pytest.mark.parametrize(
    ("case", "grammar", "detail"),
    [
        (SMALL, schema.grammar({"type": "integer", "maximum": 8}), "makes 8, which is invalid"),
        (PAIR, schema.grammar({"properties": {"a": {}, "b": {}}}), 'makes {"a":2,"b":2}'),
        (_case({"type": "null"}), schema.grammar({"const": "x"}), 'makes "x", which is invalid'),
    ],
)
def test_a_grammar_that_generates_invalid_values_is_wrong(
    case: dict[str, Any], grammar: str, detail: str
) -> None:
    verdict = judged(case, "draft2020-12", lambda _: grammar)
    assert verdict.outcome == "wrong"
    assert detail in verdict.detail


@pytest.mark.parametrize(
    ("asked", "valid", "outcome"),
    [
        ({"items": {"not": {}}}, [[]], ("refused", "not")),
        ({"type": "number", "minimum": 1.123456789012345678}, [2], ("refused", "minimum")),
        ({"type": "string", "minLength": 2, "maxLength": 1}, [], ("empty", "")),
        ({"type": "string", "minLength": 2, "maxLength": 1}, ["ab"], ("wrong", "'ab' fits, but")),
    ],
)
def test_a_refusal_is_right_if_it_names_the_keyword(
    asked: Any, valid: list[Any], outcome: tuple[str, str]
) -> None:
    verdict = judged(_case(asked, *((value, True) for value in valid)), "draft2020-12")
    assert verdict.outcome == outcome[0]
    assert verdict.detail.startswith(outcome[1])


def test_a_refusal_that_names_nothing_and_a_crash_are_wrong() -> None:
    def crash(_: Any) -> str:
        raise TypeError("no")

    assert judged(SMALL, "draft7", crash).detail == "raises TypeError('no')"
    deep: Any = {}
    for _ in range(300):
        deep = {"items": deep}
    assert judged(_case(deep), "draft7").detail.startswith("names no keyword")


def test_a_value_is_spelled_in_every_order() -> None:
    assert set(spellings({"a": [1.0], "b": "é"})) >= {
        '{"a":[1.0],"b":"é"}',
        '{"b": "é", "a": [1]}',
        '{"b":"\\u00e9","a":[1]}',
    }


@pytest.mark.parametrize("is_right", [True, False])
def test_a_folder_is_reported_file_by_file(tmp_path: Path, is_right: bool) -> None:
    names_nothing = _case({"type": "string", "minLength": 1, "maxLength": 0}, ("", True))
    for name, cases in (("a.json", [SMALL, PAIR]), ("optional/b.json", [names_nothing])):
        if cases == [names_nothing] and is_right:
            continue
        path = tmp_path / "draft2020-12" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cases), encoding="utf-8")
    lines: list[str] = []
    assert report(tmp_path, lines.append) is is_right
    counts = [line.split() for line in lines]
    assert ["a.json", "2", "0", "0", "0", "3/4"] in counts
    assert ["all", "2", "0", "0", "0" if is_right else "1", "3/4"] in counts


@pytest.mark.skipif(SUITE is None, reason="EDGESPPO_SCHEMA_SUITE names no folder")
def test_nothing_is_wrong_about_the_public_suite() -> None:
    assert SUITE
    lines: list[str] = []
    assert report(Path(SUITE), lines.append), "\n".join(lines)
