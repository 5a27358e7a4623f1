"""`eval alpaca`: AlpacaEval's files, and figures that need no judge."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.batches import alpaca
from edgesppo.batches.answer_figures import Answer, by_subset, figures, is_repeating
from edgesppo.batches.input import open_rows
from edgesppo.batches.likelihood import (
    Likelihood,
    likelihood_figures,
    likelihoods,
    paired_difference,
)
from edgesppo.errors import UsageError
from tests.support.command_line import run

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

INSTRUCTIONS = [
    {"dataset": "koala", "instruction": "What is the capital of France?", "output": "x"},
    {"dataset": "vicuna", "instruction": "Who are you?", "generator": "y"},
    {"dataset": "koala", "instruction": "What is the capital of France?"},
]


@pytest.fixture
def instructions(tmp_path: Path) -> Path:
    path = tmp_path / "alpaca_eval.json"
    path.write_text(json.dumps(INSTRUCTIONS))
    return path


def test_the_outputs_are_of_alpaca_eval_s_form(demo_gguf: Path, instructions: Path) -> None:
    out = instructions.parent / "model outputs.json"
    words = ["--generator", "ours", "--max-tokens", "8"]
    result = run("eval", "alpaca", demo_gguf, instructions, out, *words)
    assert result.exit_code == 0, result.output
    outputs = json.loads(out.read_text("utf-8"))
    assert [list(row) for row in outputs] == [["dataset", "instruction", "output", "generator"]] * 3
    for row, given in zip(outputs, INSTRUCTIONS, strict=True):
        assert (row["dataset"], row["instruction"]) == (given["dataset"], given["instruction"])
        assert row["generator"] == "ours"
    assert outputs[0]["output"] == outputs[2]["output"] == "The capital of France is Paris."
    assert result.stdout.splitlines()[-1].startswith("alpaca_eval --model_outputs '/")
    assert "win" not in result.stdout.lower()
    for length in ("1,669", "1,759", "1,803"):
        assert length in result.stdout


def test_it_goes_on_and_says_the_same_as_json(demo_gguf: Path, instructions: Path) -> None:
    out = instructions.parent / "out.json"
    words = ["eval", "alpaca", demo_gguf, instructions, out, "--max-tokens", "4", "--json"]
    first, again = (json.loads(run(*words).stdout) for _ in range(2))
    assert (first["resumed"], again["resumed"]) == (0, 3)
    for found in (first, again):
        assert (found["count"], found["cut_off"]) == (3, 3)
        assert found["subsets"]["koala"]["count"] == 2
        assert found["published_lengths"] == {"Iter1": 1669, "Iter2": 1759, "Iter3": 1803}
    assert "win_rate" not in first


def test_instructions_without_an_answer_are_a_failure_and_in_no_figure(
    demo_gguf: Path, instructions: Path
) -> None:
    rows = [*INSTRUCTIONS[:1], {"instruction": "word " * 900}]
    instructions.write_text(json.dumps(rows))
    out, reference = (instructions.parent / name for name in ("out.json", "reference.json"))
    reference.write_text(json.dumps([{**rows[1], "output": "x"}]))
    words = ["--n-ctx", "256", "--generator", "\udcff", "--reference", reference]
    result = run("eval", "alpaca", demo_gguf, instructions, out, *words, "--max-tokens", "4")
    assert result.exit_code == 1
    assert '1 with an "error"' in result.stderr
    assert "log-likelihood" not in result.stdout, "nothing could be scored"
    assert [row["output"] == "" for row in json.loads(out.read_text("utf-8"))] == [False, True]
    (line,) = (line.split() for line in result.stdout.splitlines() if line.startswith("all "))
    assert line[1] == "1"
    assert line[3] == "0", "what failed is not an empty answer"


def test_the_published_prompt_has_no_line_break_after_model(
    demo_gguf: Path, instructions: Path
) -> None:
    counts = []
    for form in ("canonical", "published"):
        out = instructions.parent / f"{form}.json"
        words = ["--prompt-form", form, "--max-tokens", "1", "--json"]
        result = run("eval", "alpaca", demo_gguf, instructions, out, *words)
        counts.append(json.loads(result.stdout)["usage"]["prompt_tokens"])
    assert counts[0] - counts[1] == len(INSTRUCTIONS)


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([{"prompt": "Hi"}], "row 1 has no 'instruction' with a text (it has 'prompt')"),
        (["Hi"], "row 1 has no 'instruction'"),
        ([{"instruction": "Hi"}, {"instruction": " "}], "row 2 has no 'instruction'"),
        ([{"instruction": "Hi", "input": "there"}], "'input' beside its instruction"),
        ([{"instruction": "Hi", "dataset": 5}], "dataset has the type int"),
        ([{"instruction": "Hi\ud83d"}], "row 1: instruction has a lone surrogate"),
        ([5], "expected an object"),
    ],
)
def test_instructions_of_another_form_are_refused(
    tmp_path: Path, rows: list[Any], named: str
) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(rows))
    with open_rows(path) as found, pytest.raises(UsageError) as caught:
        alpaca.read_instructions(found)
    assert named in str(caught.value)


def test_an_output_of_someone_else_is_left_alone(instructions: Path) -> None:
    out = instructions.parent / "out.json"
    out.write_text("mine")
    result = run("eval", "alpaca", "demo", instructions, out)
    assert result.exit_code == 1
    assert "was not made here" in result.stderr
    assert out.read_text() == "mine"


def test_the_interval_is_the_mean_s() -> None:
    lengths = [100, 250, 75, 310, 190, 205]
    found = figures([Answer("x" * n, "stop") for n in lengths])
    assert found.mean_length == pytest.approx(statistics.mean(lengths))
    half = 1.96 * statistics.stdev(lengths) / len(lengths) ** 0.5
    assert found.interval == pytest.approx((found.mean_length - half, found.mean_length + half))
    assert figures([Answer("x", "stop"), Answer("", "error")]).mean_length == 1
    assert figures([Answer("x", "stop")]).interval is None
    assert figures([]).count == 0


def test_what_went_wrong_is_counted_by_subset() -> None:
    loop = "I am sorry, I cannot. " * 20
    answers = [
        Answer("", "stop", subset="a"),
        Answer("cut", "length", subset="a"),
        Answer(f"Well. {loop}", "length", subset="b"),
        Answer("Hi <end_of_turn>", "stop", subset="b"),
        Answer("Hi", "stop", n_control_tokens=1, subset="b"),
        Answer("All is well.", "stop", subset="b"),
    ]
    found = figures(answers)
    counts = (found.empty, found.cut_off, found.repeating, found.with_control_tokens)
    assert counts == (1, 2, 1, 2)
    subsets = by_subset(answers)
    assert {name: part.count for name, part in subsets.items()} == {"a": 2, "b": 4}
    assert subsets["a"].empty == subsets["b"].repeating == 1


def test_repetition_is_a_loop_at_the_end_and_not_a_list() -> None:
    items = "\n".join(f"{n}. Something number {n}" for n in range(40))
    for text in ("", "ha ha ha", items, "The end. " * 2 + "x" * 80 + "not the end", "-" * 40):
        assert not is_repeating(text), text
    for text in ("a" * 60, "no " * 30, f"{items} and so on and so on" + " and so on" * 9):
        assert is_repeating(text), text


def test_the_likelihood_of_an_answer_is_the_sum_of_its_tokens(wide: LoadedModel) -> None:
    pairs = [("What is the capital of France?", "Berlin, I think."), ("Hello", "word " * 600)]
    seen: list[float] = []
    found, too_long = likelihoods(wide, alpaca.recipe({}), pairs, seen.append)
    assert too_long is None
    assert found is not None
    assert seen[-1] == 1
    messages = [
        {"role": "user", "content": pairs[0][0]},
        {"role": "assistant", "content": pairs[0][1]},
    ]
    scored = wide.score(messages)[-found.n_tokens - 1 : -1]  # without the line break at the end
    assert scored[-1].text == "<end_of_turn>"
    assert found.log == pytest.approx(sum(token.logprob for token in scored), abs=1e-3)
    assert likelihood_figures([found, too_long]).answers == 1


def test_after_the_published_prompt_the_line_break_is_the_model_s_to_write(
    wide: LoadedModel,
) -> None:
    pairs = [("What is the capital of France?", "The capital of France is Paris.")]
    forms = (alpaca.recipe({}, published_form=published) for published in (False, True))
    (own,), (bare,) = (likelihoods(wide, form, pairs, lambda _: None) for form in forms)
    assert own is not None
    assert bare is not None
    assert bare.n_tokens == own.n_tokens + 1
    assert bare.log == pytest.approx(own.log, abs=0.1)


def test_the_likelihoods_of_two_models_are_compared_answer_by_answer() -> None:
    these = [Likelihood(-10.0, 5), Likelihood(-20.0, 9), None, Likelihood(-5.0, 2)]
    others = [Likelihood(-12.0, 5), Likelihood(-21.0, 9), Likelihood(-9.0, 1), None]
    mean, interval = paired_difference(these, others)
    assert mean == pytest.approx(1.5)
    assert interval == pytest.approx((1.5 - 0.98, 1.5 + 0.98))


def test_a_reference_is_scored_under_both_models(
    demo_gguf: Path, demo_f32: Path, instructions: Path
) -> None:
    reference = instructions.parent / "reference.json"
    rows = [{**row, "output": "The capital of France is Paris."} for row in INSTRUCTIONS[:2]]
    reference.write_text(json.dumps(rows))
    options = ["--reference", reference, "--against", demo_f32, "--max-tokens", "2"]
    words = ["eval", "alpaca", demo_gguf, instructions, instructions.parent / "out.json", *options]
    result = run(*words)
    assert "Difference, output by output: " in result.stdout
    found = json.loads(run(*words, "--json").stdout)
    assert found["reference"]["answers"] == 3  # one instruction is there twice
    both = found["reference"]["mean"] - found["against"]["mean"]
    assert found["against"]["difference"] == pytest.approx(both)


def test_a_reference_of_another_form_is_refused(instructions: Path) -> None:
    reference = instructions.parent / "reference.json"
    for rows, named in (
        ([{"instruction": "Hi"}], "no 'output'"),
        ([{"instruction": "Hi", "output": "x"}], "no output for any of the 3 instructions"),
    ):
        reference.write_text(json.dumps(rows))
        out = instructions.parent / "out.json"
        result = run("eval", "alpaca", "demo", instructions, out, "--reference", reference)
        assert result.exit_code == 1
        assert named in result.stderr
    assert run("eval", "alpaca", "demo", instructions, "o", "--against", "demo").exit_code == 2
