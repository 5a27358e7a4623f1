"""`edgesppo.batch`: the forms of rows, what each is answered with, and shared prefixes."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo.batches.batch import Batch
from edgesppo.batches.input import open_rows
from edgesppo.batches.local import LocalModel
from edgesppo.batches.recipe import Recipe, take_part
from edgesppo.errors import UsageError
from tests.support.command_line import CAPITAL

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.batches.result import BatchResult
    from edgesppo.loaded_model import LoadedModel

PARIS = "The capital of France is Paris."
AGE = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 99}}}


def answered(model: LoadedModel, rows: Any, **options: Any) -> dict[int, BatchResult]:
    results = list(edgesppo.batch(model, rows, **{"temperature": 0, **options}))
    assert len({result.row for result in results}) == len(results)
    return {result.row: result for result in results}


def openai_row(custom_id: str, **body: Any) -> dict[str, Any]:
    body.setdefault("messages", [{"role": "user", "content": CAPITAL}])
    url = "/v1/chat/completions"
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "x", **body}}


def test_each_row_gets_what_it_would_get_alone(wide: LoadedModel) -> None:
    questions = [CAPITAL, "Who are you?", "What is 2 plus 3?", "Hello", "My name is Ada.", "Bye"]
    found = answered(wide, [{"prompt": text} for text in questions], max_tokens=20)
    alone = [wide.ask(text, temperature=0, max_tokens=20) for text in questions]
    assert [found[n].text for n in range(1, 7)] == alone


def test_a_row_is_a_prompt_messages_or_a_mere_text(wide: LoadedModel) -> None:
    said = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "What is my name?"},
    ]
    biased = {"prompt": CAPITAL, "logit_bias": {106: -1.0}}
    found = answered(wide, [{"prompt": CAPITAL}, {"messages": said}, CAPITAL, biased])
    assert found[1].text == found[3].text == found[4].text == PARIS
    assert found[2].text == wide.ask(said, temperature=0)


def test_a_plain_line_has_these_keys(wide: LoadedModel) -> None:
    (result,) = edgesppo.batch(wide, [{"prompt": CAPITAL, "custom_id": "a", "seed": 7}])
    keys = ["row", "custom_id", "text", "finish_reason", "seed", "usage", "error"]
    assert list(result) == keys
    assert (result["row"], result["custom_id"], result["seed"]) == (1, "a", 7)
    assert result["usage"].keys() == {"prompt_tokens", "cached_tokens", "completion_tokens"}
    assert result["error"] is None
    assert result["finish_reason"] == "stop"


def test_a_row_of_openai_s_form_is_answered_in_that_form(wide: LoadedModel) -> None:
    row = openai_row("a", n=2, seed=5, max_completion_tokens=3, logprobs=True, top_logprobs=1)
    result = answered(wide, [row])[1]
    assert list(result) == ["id", "custom_id", "response", "error"]
    assert (result["custom_id"], result["error"]) == ("a", None)
    response = result["response"]
    assert response["status_code"] == 200
    body = response["body"]
    assert body["object"] == "chat.completion"
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["seed"] for choice in body["choices"]] == [5, 6]
    first = body["choices"][0]
    assert first["finish_reason"] == "length"
    assert first["message"]["role"] == "assistant"
    assert PARIS.startswith(first["message"]["content"])
    assert len(first["logprobs"]["content"]) == 3
    assert len(first["logprobs"]["content"][0]["top_logprobs"]) == 1
    usage = body["usage"]
    assert usage["completion_tokens"] == 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + 6


def test_openai_s_text_parts_developer_and_nulls_are_understood(wide: LoadedModel) -> None:
    parts = [
        {"type": "text", "text": "What is the capital "},
        {"type": "input_text", "text": "of France?"},
    ]
    messages = [{"role": "developer", "content": "Hi"}, {"role": "user", "content": parts}]
    row = openai_row("a", messages=messages, stop=None, tools=None, user="me", stream=False)
    told = [{"role": "system", "content": "Hi"}, {"role": "user", "content": CAPITAL}]
    assert answered(wide, [row])[1].text == wide.ask(told, temperature=0)


def test_tools_bind_a_row_to_a_call(wide: LoadedModel) -> None:
    parameters = {"properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    parameters |= {"type": "object", "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    asked = {"tools": tools, "tool_choice": "required"}
    rows = [
        {"prompt": "hi", **asked},
        openai_row("a", **asked),
        openai_row("b", tools=tools, tool_choice="none"),
        openai_row("c", **asked, parallel_tool_calls=True, logit_bias={"108": 100}),  # a new line
    ]
    found = answered(wide, rows)
    assert len(found[4].answers[0]["tool_calls"]) > 1
    message = found[2]["response"]["body"]["choices"][0]["message"]
    assert message["content"] is None
    for calls in (found[1]["tool_calls"], message["tool_calls"]):
        (call,) = calls
        assert call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")
    assert [found[n].answers[0]["finish_reason"] for n in (1, 2)] == ["tool_calls"] * 2
    assert found[1].text == found[2].text == ""
    assert found[2].answers[0]["tool_calls"] == message["tool_calls"]
    assert found[3].text == PARIS


def test_results_of_tools_are_told_to_the_model(wide: LoadedModel) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "sum", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
    ]
    told = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": '{"name": "sum", "arguments": {}}'},
        {"role": "user", "content": "Result of sum:\n3"},
    ]
    found = answered(wide, [openai_row("a", messages=messages), {"messages": messages}])
    assert found[1].text == found[2].text == wide.ask(told, temperature=0)


def test_who_speaks_is_told_to_the_model(wide: LoadedModel) -> None:
    named = [{"role": "user", "name": "Ada", "content": CAPITAL}]
    told = wide.ask(f"Ada: {CAPITAL}", temperature=0, max_tokens=9)
    assert answered(wide, [openai_row("a", messages=named)], max_tokens=9)[1].text == told


def test_several_answers_have_seeds_of_their_own(wide: LoadedModel) -> None:
    rows = [
        {"prompt": "Hi", "n": 3, "seed": 8},
        {"prompt": "Hi", "seeds": [4, 2]},
        {"prompt": "Hi"},
    ]
    found = answered(wide, rows, n=2, temperature=3, top_p=1, max_tokens=4)
    assert [answer["seed"] for answer in found[1].answers] == [8, 9, 10]
    assert [answer["seed"] for answer in found[2]["answers"]] == [4, 2]
    assert len({answer["seed"] for answer in found[3].answers}) == 2
    assert len(set(found[1].texts)) == 3


def test_a_row_overrides_what_holds_for_all(wide: LoadedModel) -> None:
    rows = [{"prompt": CAPITAL, "max_tokens": 2}, {"prompt": CAPITAL, "stop": "Paris"}, CAPITAL]
    found = answered(wide, rows, max_tokens=4)
    counts = [found[n]["usage"]["completion_tokens"] for n in (1, 3)]
    assert counts == [2, 4]
    assert [found[n]["finish_reason"] for n in (1, 2, 3)] == ["length", "length", "length"]
    assert answered(wide, rows[1:2])[1].text == "The capital of France is "


def test_a_schema_binds_all_rows_or_one(wide: LoadedModel) -> None:
    strict = {"type": "json_schema", "json_schema": {"name": "age", "schema": AGE}}
    rows = [
        {"prompt": "hi", "schema": AGE},
        openai_row("b", response_format=strict),
        {"prompt": "hi", "schema": AGE, "max_tokens": 1},
        {"prompt": "hi"},
    ]
    found = answered(wide, rows)
    assert found[1]["value"] == json.loads(found[1].text)
    assert 0 <= json.loads(found[2].text).get("age", 0) <= 99 or "age" in found[2].text
    assert (found[3]["value"], found[3]["finish_reason"]) == (None, "length")
    assert "value" not in found[4]
    assert "value" in answered(wide, ["hi"], schema=AGE)[1]


def test_a_system_text_is_of_the_batch_or_of_the_row(wide: LoadedModel) -> None:
    own = [{"role": "system", "content": "Own."}, {"role": "user", "content": "Hi"}]
    rows = [{"prompt": "Hi"}, {"prompt": "Hi", "system": "Own."}, {"messages": own}]
    found = answered(wide, rows, system="Of all, which is longer.")
    lengths = [found[n]["usage"]["prompt_tokens"] for n in (1, 2, 3)]
    assert lengths[0] > lengths[1] == lengths[2]


def test_a_shared_prefix_is_prefilled_once(wide: LoadedModel) -> None:
    system = "Always answer in one short sentence, please. " * 8
    rows = [{"prompt": f"What is {n} plus 2?"} for n in range(12)]
    with open_rows(rows) as found:
        job = Batch(
            LocalModel(wide), found, Recipe({"temperature": 0, "max_tokens": 8}, system=system)
        )
        list(job.run())
    shared = wide.count_tokens([{"role": "system", "content": system}]) - 5
    assert shared > 80
    fresh = job.counts.prompt_tokens - job.counts.cached_tokens
    assert fresh < shared + 12 * 20
    assert job.counts.cached_tokens >= 11 * shared


def test_the_answers_to_one_prompt_share_it(wide: LoadedModel) -> None:
    prompt = "Please remember this: " + "my name is Bob and I like tea. " * 10
    with open_rows([{"prompt": prompt}]) as found:
        job = Batch(LocalModel(wide), found, Recipe({"max_tokens": 2}, n=5))
        list(job.run())
    assert job.counts.prompt_tokens - job.counts.cached_tokens < job.counts.prompt_tokens / 4


def test_more_answers_than_the_context_holds_take_turns(wide: LoadedModel) -> None:
    long = "My name is Bob and I like tea. " * 25  # each takes most of the context
    rows = [{"prompt": f"{n} {long}"} for n in range(5)]
    found = answered(wide, rows, max_tokens=6)
    assert all(result.error is None for result in found.values())


def test_leaving_the_iterator_stops_all_answers(wide: LoadedModel) -> None:
    rows = [{"prompt": f"Hello {n}"} for n in range(9)]
    results = edgesppo.batch(wide, rows, temperature=0)
    next(results)
    results.close()
    assert wide._interior.engine._schedule.requests() == []
    assert wide.ask(CAPITAL, temperature=0) == PARIS


def test_a_model_that_is_closed_ends_the_batch(demo_gguf: Path, tmp_path: Path) -> None:
    rows, out = [f"Hello {n}" for n in range(9)], tmp_path / "out.jsonl"
    with edgesppo.load(demo_gguf, n_seqs=2) as model:
        results = edgesppo.batch(model, rows, out, temperature=0)
        next(results)
    with pytest.raises(edgesppo.Closed):
        list(results)
    assert all(json.loads(line)["error"] is None for line in out.read_text().splitlines())


def test_a_model_by_name_is_loaded_and_a_file_may_be_a_list(
    demo_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([CAPITAL, {"prompt": "Hello"}]))
    results = list(edgesppo.batch(demo_gguf, tmp_path / "rows.json", temperature=0, parallel=2))
    assert PARIS in [result.text for result in results]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_rows_may_come_from_a_pipe_and_the_output_may_be_a_link(
    wide: LoadedModel, tmp_path: Path
) -> None:
    pipe, link, target = (tmp_path / name for name in ("pipe", "link", "target"))
    os.mkfifo(pipe)
    link.symlink_to(target)
    writer = threading.Thread(target=lambda: pipe.write_text(json.dumps(CAPITAL)))
    writer.start()
    assert [r.text for r in edgesppo.batch(wide, pipe, link, temperature=0)] == [PARIS]
    writer.join()
    assert link.is_symlink()
    assert json.loads(target.read_text())["text"] == PARIS


def test_mistakes_are_refused_before_anything_runs(wide: LoadedModel, tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"temprature": 1},
        {"n": 0},
        {"seeds": [1, 1]},
        {"seeds": [1, 2], "n": 2},
        {"part": (4, 3)},
        {"parallel": 65},
        {"schema": 5},
        {"temperature": -1},
        {"on_progress": 5},
    ]
    for options in wrong:
        with pytest.raises(UsageError):
            edgesppo.batch(wide, ["Hi"], **options)
    for rows in (5, {"prompt": "Hi"}, tmp_path, tmp_path / "none.jsonl", [], [object()]):
        with pytest.raises(UsageError):
            edgesppo.batch(wide, rows)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="n_seqs=9"):
        edgesppo.batch(wide, ["Hi"], parallel=9)
    with pytest.raises(UsageError, match="part 1/2 of 1 rows has none"):
        edgesppo.batch(wide, ["Hi"], part=(1, 2))
    with pytest.raises(UsageError, match="is a folder"):
        edgesppo.batch(wide, ["Hi"], tmp_path)
    with pytest.raises(edgesppo.ModelNotFound):
        edgesppo.batch("no-such-model", ["Hi"])
    (tmp_path / "rows.jsonl").write_text('"Hi"\n')
    edgesppo.batch(
        "demo", tmp_path / "rows.jsonl"
    ).close()  # leaves no file open, as a warning says


@pytest.mark.parametrize("n_rows", [1, 7, 9, 10])
def test_parts_are_consecutive_equal_and_together_everything(n_rows: int) -> None:
    rows = list(range(n_rows))
    for n in range(1, n_rows + 1):
        parts = [take_part(rows, (i, n)) for i in range(1, n + 1)]
        assert [row for part in parts for row in part] == rows
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(UsageError, match="has none"):
        take_part(rows, (1, n_rows + 1))


def test_progress_counts_rows_and_tokens(wide: LoadedModel) -> None:
    seen: list[tuple[int, int]] = []
    rows = ["Hello", CAPITAL, {"promt": "x"}]
    list(
        edgesppo.batch(wide, rows, on_progress=lambda c: seen.append((c.done, c.completion_tokens)))
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == 3
    assert seen[-1][1] > 8
