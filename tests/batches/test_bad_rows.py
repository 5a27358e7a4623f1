"""Bad rows: each gets a line that says what is wrong, and the others are answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.errors import UsageError
from tests.support.command_line import CAPITAL

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

BODY = {"messages": [{"role": "user", "content": "Hi"}]}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f"}}


def as_row(row: Any) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row).encode()


# What a row is, the code of its error, and what the message names.
BAD: list[tuple[Any, str, str]] = [
    (b"not json", "invalid_json", "not JSON"),
    (b'{"prompt": "cut off', "invalid_json", "not JSON"),
    (b'{"prompt": "\xff"}', "invalid_json", "not UTF-8"),
    (b"[" * 100_000, "invalid_json", "nested too deeply"),
    ([1], "invalid_json", "expected an object"),
    ({"promt": "Hi"}, "invalid_request", "'promt' (did you mean prompt?)"),
    ({"prompt": "Hi", "temprature": 1}, "invalid_request", "did you mean temperature?"),
    ({}, "invalid_request", "no 'prompt'"),
    ({"prompt": "Hi", "messages": []}, "invalid_request", "both 'prompt' and 'messages'"),
    ({"prompt": "  "}, "invalid_request", "no text"),
    ({"prompt": 5}, "invalid_request", "prompt has the type int"),
    ({"prompt": "\ud800"}, "invalid_request", "lone surrogate"),
    ({"prompt": "Hi", "custom_id": 5}, "invalid_request", "custom_id"),
    ({"prompt": "Hi", "temperature": -1}, "invalid_request", "temperature is -1"),
    ({"prompt": "Hi", "logit_bias": {"9" * 5000: 1}}, "invalid_request", "has '999"),
    ({"prompt": "Hi", "logit_bias": {"3": 1, "03": 5}}, "invalid_request", "more than once"),
    ({"prompt": "Hi", "n": 0}, "invalid_request", "n is 0"),
    ({"prompt": "Hi", "n": 2, "seeds": [1]}, "invalid_request", "'seeds' beside 'n'"),
    ({"prompt": "Hi", "seeds": [1, 1]}, "invalid_request", "different ones"),
    ({"prompt": "Hi", "schema": {"type": "x"}}, "invalid_request", "schema"),
    ({"prompt": "Hi", "schema": {"not": {}}}, "invalid_request", "'not'"),
    ({"prompt": "Hi", "schema": True, "stop": "x"}, "invalid_request", "stop"),
    ({"prompt": "Hi", "tools": [TOOL, TOOL]}, "invalid_request", "the name 'f'"),
    ({"prompt": "Hi", "tools": [{"name": "f"}]}, "invalid_request", "tool 1 is"),
    ({"prompt": "Hi", "tools": [TOOL], "schema": True}, "invalid_request", "used together"),
    ({"prompt": "Hi", "tool_choice": "required"}, "invalid_request", "not among the tools"),
    ({"prompt": "Hi", "parallel_tool_calls": 1}, "invalid_request", "true or false"),
    ({"messages": [USER, {"role": "tool", "content": "3"}]}, "invalid_request", "tool_call_id"),
    ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "invalid_request", "the last"),
    ({"messages": [{"role": "robot", "content": "Hi"}]}, "invalid_request", "'robot'"),
    ({"prompt": "word " * 600}, "context_length_exceeded", "the context holds 512"),
    ({"prompt": "word " * 100_000}, "context_length_exceeded", "at least"),
    ({"body": BODY}, "invalid_request", "custom_id is None"),
    ({"custom_id": "a", "body": 5}, "invalid_request", "body is 5"),
    ({"custom_id": "b", "body": BODY, "zap": 1}, "invalid_request", "'zap'"),
    ({"custom_id": "c", "body": {**BODY, "zap": 1}}, "invalid_request", "'zap'"),
    ({"custom_id": "d", "body": BODY, "url": "/v1/embeddings"}, "invalid_request", "url"),
    ({"custom_id": "e", "body": BODY, "method": "GET"}, "invalid_request", "method"),
    ({"custom_id": "f", "body": {**BODY, "stream": True}}, "invalid_request", "stream"),
    ({"custom_id": "g", "body": {**BODY, "functions": [TOOL]}}, "invalid_request", "use tools"),
    ({"custom_id": "h", "body": {"messages": [IMAGE]}}, "invalid_request", "'image_url'"),
    ({"custom_id": "i", "body": {**BODY, "top_logprobs": 2}}, "invalid_request", "logprobs=true"),
    (
        {"custom_id": "j", "body": {**BODY, "response_format": 5}},
        "invalid_request",
        "response_format",
    ),
]


def test_each_bad_row_says_what_is_wrong_and_stops_nothing(
    wide: LoadedModel, tmp_path: Path
) -> None:
    good = as_row({"prompt": CAPITAL})
    lines = [good, *(as_row(row) for row, _, _ in BAD), good]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    results = {r.row: r for r in edgesppo.batch(wide, tmp_path / "in.jsonl", temperature=0)}
    assert len(results) == len(lines)
    assert results[1].text == results[len(lines)].text == "The capital of France is Paris."
    for row, (_, code, named) in enumerate(BAD, 2):
        result = results[row]
        assert result["error"]["code"] == code, result
        assert named in (result.error or ""), result
        assert result.error is not None
        assert f"row {row}" not in result.error or "response" in result
        assert (result.text, result.texts) == ("", [])
        if "response" in result:
            assert result["response"]["status_code"] == 400
            assert result["response"]["body"]["error"]["message"] == result.error


def test_a_row_of_ten_megabytes_is_not_read(wide: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(as_row({"prompt": "x" * 10_000_000}) + b'\n"Hello"\n')
    results = {r.row: r for r in edgesppo.batch(wide, tmp_path / "in.jsonl", max_tokens=3)}
    assert results[1]["error"]["code"] == "row_too_long"
    assert "10,000,015 bytes" in (results[1].error or "")
    assert results[2].error is None


def test_the_second_row_of_an_id_is_refused(wide: LoadedModel) -> None:
    rows = [{"custom_id": "a", "body": BODY}, {"prompt": "Hi", "custom_id": "a"}]
    results = {r.row: r for r in edgesppo.batch(wide, rows, max_tokens=3)}
    assert results[1].error is None
    assert results[2]["error"]["code"] == "duplicate_custom_id"
    assert "row 1" in (results[2].error or "")


def test_among_openai_s_rows_a_bad_one_is_answered_in_their_form(
    wide: LoadedModel, tmp_path: Path
) -> None:
    good = {"custom_id": "a", "body": {**BODY, "max_tokens": 2}}
    (tmp_path / "in.jsonl").write_bytes(b"not json\n" + as_row(good))
    results = {r.row: r for r in edgesppo.batch(wide, tmp_path / "in.jsonl")}
    assert [list(results[row]) for row in (1, 2)] == [["id", "custom_id", "response", "error"]] * 2
    assert (results[1].custom_id, results[2].custom_id) == (None, "a")
    assert (results[1].error or "").startswith("row 1: the row is not JSON")  # nothing else says it


def test_a_row_that_its_line_names_is_not_named_in_the_error_again(wide: LoadedModel) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 600}]}
    rows = [{"custom_id": "a", "body": long}, {"prompt": "word " * 600}]
    errors = [result.error or "" for result in edgesppo.batch(wide, rows)]
    assert [error.startswith("the prompt has ") for error in errors] == [True, True], errors


def test_empty_lines_and_a_byte_order_mark_are_no_rows(wide: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf"Hello"\r\n\n  \n"Hi"')
    results = edgesppo.batch(wide, tmp_path / "in.jsonl", max_tokens=3)
    assert sorted((r.row, r.error) for r in results) == [(1, None), (4, None)]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "no rows"),
        (b"\n\n", "no rows"),
        (b"[1, 2", "begins like a JSON list"),
        ('"Hello"'.encode("utf-16"), "UTF-16"),
        (b"GGUF\x03\0\0\0", "is a model file"),
    ],
)
def test_an_input_without_rows_is_refused(
    wide: LoadedModel, tmp_path: Path, data: bytes, named: str
) -> None:
    (tmp_path / "in.jsonl").write_bytes(data)
    with pytest.raises(UsageError, match=named):
        next(edgesppo.batch(wide, tmp_path / "in.jsonl"))


def test_an_input_that_changes_meanwhile_is_noticed(wide: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f'"{"a" * 9_000}"\n' * 60)
    results = edgesppo.batch(wide, path, max_tokens=2)
    next(results)
    path.write_text(f'"{"b" * 9_000}"\n' * 60)
    with pytest.raises(UsageError, match="changed while the batch ran"):
        list(results)
