"""`run --json-lines`: one JSON object a line, whose texts are the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command_line import CAPITAL, GREEDY, run

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_pieces_are_the_answer_and_the_last_has_what_json_has(demo_gguf: Path) -> None:
    whole = json.loads(run("run", demo_gguf, CAPITAL, *GREEDY, "--json").stdout)
    result = run("run", demo_gguf, CAPITAL, *GREEDY, "--json-lines")
    *pieces, last = lines(result)
    assert result.exit_code == 0
    assert len(pieces) > 3
    assert all(piece.keys() == {"text"} and piece["text"] for piece in pieces)
    assert "".join(piece["text"] for piece in [*pieces, last]) == whole["text"]
    assert last.keys() == whole.keys()
    for key in ("finish_reason", "usage", "model"):
        assert last[key] == whole[key]


def test_text_that_may_be_a_stop_string_comes_once_and_late(demo_gguf: Path) -> None:
    words = ["run", demo_gguf, CAPITAL, *GREEDY, "--stop", "Paris!", "--max-tokens", "6"]
    whole = json.loads(run(*words, "--json").stdout)
    found = lines(run(*words, "--json-lines"))
    assert "".join(piece["text"] for piece in found) == whole["text"]
    assert whole["text"].endswith("Paris")
    assert found[-1]["finish_reason"] == "length"


def test_every_token_has_its_log_probability_once(demo_gguf: Path) -> None:
    words = ["run", demo_gguf, CAPITAL, *GREEDY, "--logprobs", "2"]
    whole = json.loads(run(*words, "--json").stdout)
    found = lines(run(*words, "--json-lines"))
    assert all("logprobs" in piece for piece in found)
    ids = [token["id"] for piece in found for token in piece["logprobs"]]
    assert ids == [token["id"] for token in whole["logprobs"]]


def test_an_answer_with_a_schema_streams_and_ends_with_its_value(
    demo_gguf: Path, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "array", "items": {"type": "boolean"}, "minItems": 3}))
    words = ["run", demo_gguf, "hi", "--schema", schema, *GREEDY]
    found = lines(run(*words, "--json-lines", "--max-tokens", "200"))
    if "value" in found[-1]:
        assert json.loads("".join(piece["text"] for piece in found)) == found[-1]["value"]
    cut = run(*words, "--json-lines", "--max-tokens", "2")
    assert cut.exit_code == 1
    assert lines(cut)[-1]["error"]["type"] == "IncompleteAnswer"
    assert len(lines(cut)) > 1


def test_a_failure_is_one_object(demo_gguf: Path) -> None:
    result = run("run", demo_gguf, "hi", "--json-lines", "--n-ctx", "9999")
    assert result.exit_code == 1
    assert [piece["error"]["type"] for piece in lines(result)] == ["UsageError"]
    result = run("run", "demoo.gguf", "hi", "--json-lines")
    assert [piece["error"]["type"] for piece in lines(result)] == ["ModelNotFound"]


def test_one_object_and_many_exclude_each_other(demo_gguf: Path) -> None:
    for words in (["--json", "--json-lines"], ["--json-lines", "--json"]):
        result = run("run", demo_gguf, "hi", *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "give only one" in result.stderr
    result = run("run", demo_gguf, "hi", "--logprobs", "1")
    assert "--logprobs needs --json or --json-lines" in result.stderr


@pytest.mark.parametrize("session", [False, True])
def test_a_saved_chat_gets_the_whole_turn(fresh_home: Path, demo_gguf: Path, session: bool) -> None:
    more = ["--session", "rome"] if session else []
    found = lines(run("run", demo_gguf, CAPITAL, *GREEDY, "--json-lines", *more))
    text = "".join(piece["text"] for piece in found)
    saved = list((fresh_home / "sessions").glob("*.jsonl"))
    assert len(saved) == session
    assert all(text in file.read_text() for file in saved)
